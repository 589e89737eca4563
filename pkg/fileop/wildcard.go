package fileop

import (
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// trees is what wildcards are looked for in.
type trees interface {
	// find returns the directory or file at p ("" when there is none), parents followed, the last component too if follow.
	find(p string, follow bool) (branch, error)
}

// branch is a place in such a tree.
type branch interface {
	path() string // clean, relative to the root
	kids() []branch
	base() string
}

// nodeTree and placeTree are the two kinds there are.
type (
	nodeTree    struct{ v *layer.View }
	nodeBranch  struct{ layer.Node }
	placeTree   struct{ root *layer.Place }
	placeBranch struct{ *layer.Place }
)

func (t nodeTree) find(p string, follow bool) (branch, error) {
	n, err := t.v.Node(p, follow)
	return nodeBranch{n}, err
}

func (b nodeBranch) path() string { return b.Path() }
func (b nodeBranch) base() string { return b.Base() }
func (b nodeBranch) kids() []branch {
	if !b.IsDir() {
		return nil
	}
	var out []branch
	for _, k := range b.Kids() {
		out = append(out, nodeBranch{k})
	}
	return out
}

func (t placeTree) find(p string, follow bool) (branch, error) {
	at, err := t.root.Walk(p, follow)
	if err != nil {
		return nil, err
	}
	if _, ok := at.Entry(); !ok {
		return nil, &fs.PathError{Op: "stat", Path: p, Err: fs.ErrNotExist}
	}
	return placeBranch{at}, nil
}

func (b placeBranch) path() string { return b.Path() }
func (b placeBranch) base() string { return b.Base() }
func (b placeBranch) kids() []branch {
	if !b.IsDir() {
		return nil
	}
	names := b.Names()
	slices.Sort(names)
	out := make([]branch, len(names))
	for i, n := range names {
		out[i] = placeBranch{b.Kid(n)}
	}
	return out
}

// wildcards returns the names that pattern means: itself without a wildcard, else what matches the whole rest of the
// path from the first component with one on, sorted, and nothing below what matched.
func wildcards(t trees, pattern string, follow bool) ([]string, error) {
	literal, rest := splitWildcards(pattern)
	if rest == "" {
		return []string{literal}, nil
	}
	top, err := t.find(literal, follow)
	if err != nil {
		return nil, err
	}
	var out []string
	var walk func(b branch, rel string)
	walk = func(b branch, rel string) {
		for _, k := range b.kids() {
			name := path.Join(rel, k.base())
			if ok, err := filepath.Match(rest, name); err == nil && ok {
				out = append(out, k.path())
				continue
			}
			walk(k, name)
		}
	}
	walk(top, "")
	return out, nil
}

// splitWildcards cuts a path before its first component with a wildcard.
func splitWildcards(p string) (literal, rest string) {
	var head, tail []string
	for _, c := range strings.Split(path.Clean(p), "/") {
		if c == "" {
			c = "/"
		}
		if len(tail) > 0 || hasWildcard(c) {
			tail = append(tail, c)
		} else {
			head = append(head, c)
		}
	}
	return path.Join(head...), path.Join(tail...)
}

func hasWildcard(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

package layer

import (
	"archive/tar"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Glob returns the names that match the pattern (path.Match per component, ** for any depth), sorted. Components
// without a special character are followed through symlinks, and so are directories that one
// matches; ** goes into real directories only. The names are spelled as matched, clean and relative.
func (v *View) Glob(pattern string) ([]string, error) {
	var parts []string
	for c := range strings.SplitSeq(pattern, "/") {
		if c == "" || c == "." {
			continue
		}
		if _, err := path.Match(c, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if c == "**" && len(parts) > 0 && parts[len(parts)-1] == "**" {
			continue
		}
		parts = append(parts, c)
	}
	g := globber{v: v, seen: map[string]bool{}}
	if err := g.match(v.t.root, ".", parts); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	slices.Sort(g.out)
	return g.out, nil
}

type globber struct {
	v    *View
	seen map[string]bool
	out  []string
}

func (g *globber) match(n *node, name string, parts []string) error {
	if len(parts) == 0 {
		if !g.seen[name] {
			g.seen[name] = true
			g.out = append(g.out, name)
		}
		return nil
	}
	if n.ino.e.Type == tar.TypeSymlink {
		// A symlink in the middle: go on where it leads, inside the image.
		to, missing, err := g.v.t.walk(n.path(), true)
		if err != nil || missing != "" {
			return nil //nolint:nilerr // what leads nowhere matches nothing
		}
		n = to
	}
	if !n.isDir() {
		return nil
	}
	c, rest := parts[0], parts[1:]
	if c == ".." {
		if n.parent != nil {
			n = n.parent
		}
		return g.match(n, n.path(), rest)
	}
	if c == "**" {
		// Any depth, none included. As the last component it means all that is below.
		if len(rest) > 0 {
			if err := g.match(n, name, rest); err != nil {
				return err
			}
		}
		for _, kid := range n.sortedKids() {
			kidName := joinName(name, kid.name)
			if len(rest) == 0 {
				if err := g.match(kid, kidName, nil); err != nil {
					return err
				}
			}
			if kid.isDir() {
				if err := g.match(kid, kidName, parts); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if !strings.ContainsAny(c, `*?[\`) {
		if kid := n.kids[c]; kid != nil {
			return g.match(kid, joinName(name, c), rest)
		}
		return nil
	}
	for _, kid := range n.sortedKids() {
		ok, err := path.Match(c, kid.name)
		if err != nil {
			return err
		}
		if ok {
			if err := g.match(kid, joinName(name, kid.name), rest); err != nil {
				return err
			}
		}
	}
	return nil
}

package spec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
)

// found is one file of a directory or glob source.
type found struct {
	name string // in the context, slash separated, "." is the context
	rel  string // below the source, or the fixed part of the glob
	info fs.FileInfo
	link string // target of a symlink, as it is
}

// maxFound is how many files one source may bring.
const maxFound = 1 << 20

var errTooMany = fmt.Errorf("has more than %d files", maxFound)

// walkError is a problem of one file below a source.
type walkError struct {
	name string
	err  error
}

func (e *walkError) Error() string { return fmt.Sprintf("%q %v", e.name, e.err) }
func (e *walkError) Unwrap() error { return e.err }

// walk returns what is below the directory dir, parents first, by name, without what is
// ignored. Symlinks are returned and not followed. pattern selects by the path below dir, "" selects everything; a
// directory that it selects comes with all that is below it, another one when something below it is selected.
func (c *contextDir) walk(ctx context.Context, dir, pattern string) ([]found, error) {
	key := dir + "\x00" + pattern
	if have, ok := c.walks[key]; ok {
		return have, nil
	}
	w := walker{c: c, ctx: ctx, pattern: strings.Split(pattern, "/")}
	var info patternmatcher.MatchInfo
	if c.ignore != nil && dir != "." {
		var err error
		for _, parent := range ancestors(dir) {
			if _, info, err = c.ignore.MatchesUsingParentResults(filepath.FromSlash(parent), info); err != nil {
				return nil, err
			}
		}
	}
	if _, err := w.dir(dir, nil, info, pattern == "", 0); err != nil {
		return nil, err
	}
	c.walks[key] = w.out
	return w.out, nil
}

// ancestors are the directories on the way to name, and name.
func ancestors(name string) []string {
	var out []string
	for i, c := range name {
		if c == '/' {
			out = append(out, name[:i])
		}
	}
	return append(out, name)
}

type walker struct {
	c       *contextDir
	ctx     context.Context //nolint:containedctx // lives for one call of walk
	pattern []string
	out     []found
}

// dir walks one directory; whole says that everything below is wanted. It returns whether something was found.
func (w *walker) dir(name string, rel []string, parent patternmatcher.MatchInfo, whole bool, depth int) (bool, error) {
	if err := w.ctx.Err(); err != nil {
		return false, err
	}
	if depth > 1000 {
		return false, &walkError{name, errors.New("is nested too deeply")}
	}
	entries, err := w.read(name)
	if err != nil {
		return false, &walkError{name, fmt.Errorf("cannot be read: %w", cause(err))}
	}
	any := false
	for _, e := range entries {
		child, childRel := path.Join(name, e.Name()), append(rel[:len(rel):len(rel)], e.Name())
		ignored, info := false, parent
		if w.c.ignore != nil {
			if ignored, info, err = w.c.ignore.MatchesUsingParentResults(filepath.FromSlash(child), parent); err != nil {
				return false, &walkError{child, err}
			}
		}
		if ignored && (!e.IsDir() || !w.c.ignore.Exclusions()) {
			continue
		}
		wanted := whole || matchGlob(w.pattern, childRel)
		if !wanted && (!e.IsDir() || !mayMatchBelow(w.pattern, childRel)) {
			continue
		}
		if !utf8.ValidString(e.Name()) {
			return false, &walkError{child, errors.New("is not UTF-8")}
		}
		f := found{name: child, rel: path.Join(childRel...)}
		if e.IsDir() {
			at := len(w.out)
			if f.info, err = e.Info(); err != nil {
				return false, &walkError{child, cause(err)}
			}
			w.out = append(w.out, f)
			some, err := w.dir(child, childRel, info, wanted, depth+1)
			if err != nil {
				return false, err
			}
			if !some && (ignored || !wanted) {
				w.out = w.out[:at]
				continue
			}
			any = true
			continue
		}
		if f, err = w.file(f, e); err != nil {
			return false, err
		}
		any = true
		w.out = append(w.out, f)
		if len(w.out) > maxFound {
			return false, errTooMany
		}
	}
	return any, nil
}

// file completes an entry that is no directory.
func (w *walker) file(f found, e fs.DirEntry) (found, error) {
	var err error
	if f.info, err = e.Info(); err != nil {
		return f, &walkError{f.name, cause(err)}
	}
	switch {
	case e.Type()&fs.ModeSymlink != 0:
		if f.link, err = w.c.root.Readlink(filepath.FromSlash(f.name)); err != nil {
			return f, &walkError{f.name, cause(err)}
		}
		f.link = filepath.ToSlash(f.link)
		if !utf8.ValidString(f.link) {
			return f, &walkError{f.name, errors.New("has a target that is not UTF-8")}
		}
	case !e.Type().IsRegular():
		return f, &walkError{f.name, fmt.Errorf("is %s; leave it out with %s", typeName(e.Type()), ignoreName)}
	}
	return f, nil
}

// read lists a directory by name.
func (w *walker) read(name string) ([]fs.DirEntry, error) {
	d, err := w.c.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	return entries, err
}

// isGlob reports whether a source is a pattern: \ makes the next character a plain one.
func isGlob(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// splitGlob returns the leading directories of a pattern without special characters, and the rest.
func splitGlob(pattern string) (fixed, rest string) {
	parts := strings.Split(pattern, "/")
	for i, p := range parts {
		if isGlob(p) || i == len(parts)-1 {
			return path.Join(append([]string{"."}, parts[:i]...)...), strings.Join(parts[i:], "/")
		}
	}
	return ".", pattern
}

// matchGlob matches the parts of a name: each as path.Match, ** for any number of parts.
func matchGlob(pattern, name []string) bool {
	p, n := 0, 0
	star, from := -1, 0 // the last **, and what it stands for so far ends before from
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, from = p, n
			p++
			if p == len(pattern) {
				return true
			}
		case p < len(pattern) && matchPart(pattern[p], name[n]):
			p, n = p+1, n+1
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return p == len(pattern)
}

func matchPart(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// mayMatchBelow reports whether the pattern can match something in the directory.
func mayMatchBelow(pattern, dir []string) bool {
	for i, name := range dir {
		switch {
		case i >= len(pattern):
			return false
		case pattern[i] == "**":
			return true
		case !matchPart(pattern[i], name):
			return false
		}
	}
	return len(pattern) > len(dir)
}

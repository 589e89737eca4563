package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Missing lists what a layer needs from below to be unpacked on its own, sorted: directories that it puts
// something into without naming them ("." too), and files that it only links to. A layer that hides all
// that is below ("." is opaque) needs to know what that is, which the name of its marker stands for.
func Missing(t *TOC) []string {
	need := map[string]bool{}
	named := make(map[string]bool, len(t.Entries)) // so far: a directory may be described after what is in it
	parents := func(name string) {
		for {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				return
			}
			name = name[:i]
			if !named[name] {
				if need[name] {
					return
				}
				need[name] = true
			}
		}
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		parents(e.Name)
		switch {
		case e.Opaque && e.Name == ".":
			need[opaqueName(".")] = true
		case e.Opaque && !named[e.Name]:
			need[e.Name] = true
		case !e.Opaque && !e.Whiteout:
			named[e.Name] = true
		}
	}
	for i := range t.Entries {
		if e := &t.Entries[i]; e.Type == tar.TypeLink && !named[e.Link] {
			need[e.Link] = true
			parents(e.Link)
		}
	}
	if !named["."] {
		need["."] = true
	}
	// What the layer deletes is not needed from below, nor what it hides.
	deleted, hidden := map[string]bool{}, map[string]bool{}
	for i := range t.Entries {
		switch e := &t.Entries[i]; {
		case e.Whiteout:
			deleted[e.Name] = true
		case e.Opaque:
			hidden[e.Name] = true
		}
	}
	out := make([]string, 0, len(need))
	for name := range need {
		dir, _ := splitName(name)
		top := name == "." || name == opaqueName(".")
		if top || !anyParent(name, deleted) && !anyParent(dir, hidden) && !hidden["."] {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, comparePaths)
	return out
}

// anyParent reports whether name or a directory that it is in is in set.
func anyParent(name string, set map[string]bool) bool {
	for len(set) > 0 {
		if set[name] {
			return true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
	return false
}

// comparePaths orders names as a walk meets them: a directory's contents come right after it.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

// WriteMembers writes what [Missing] names as v has it, as tar members without the end of an archive, so that a layer can
// follow. Symlinks on the way are written too, with the directories they lead to. Names that v does not have are
// left out: whoever unpacks makes plain directories of them.
func WriteMembers(ctx context.Context, w io.Writer, v *View, names []string) error {
	c := completer{v: v, tw: newTarWriter(w), first: map[*inode]string{}, done: map[*node]bool{}}
	for _, name := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var err error
		if name == opaqueName(".") {
			err = c.hideAll()
		} else {
			err = c.path(name)
		}
		if err != nil {
			return fmt.Errorf("writing %q: %w", name, err)
		}
	}
	return c.tw.flush()
}

type completer struct {
	v     *View
	tw    *tarWriter
	first map[*inode]string
	done  map[*node]bool
}

// path writes name and all that is passed on the way to it.
func (c *completer) path(name string) error {
	var seen []*node
	_, _, err := c.v.t.visit(name, true, func(n *node) { seen = append(seen, n) })
	if err != nil {
		return nil //nolint:nilerr // the way there is closed below; whether the layer opens it is for who unpacks to see
	}
	for _, n := range seen {
		if err := c.node(n); err != nil {
			return err
		}
	}
	return nil
}

func (c *completer) node(n *node) (err error) {
	if c.done[n] {
		return nil
	}
	c.done[n] = true
	e := *n.ino.e
	e.Name = n.path()
	if to, ok := c.first[n.ino]; ok && e.Type != tar.TypeDir {
		e.Type, e.Link = tar.TypeLink, to
		return c.tw.header(&e)
	}
	c.first[n.ino] = e.Name
	if e.Type != tar.TypeReg || e.Size == 0 {
		return c.tw.header(&e)
	}
	r, err := c.v.open(n.ino)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return c.tw.file(&e, r)
}

// hideAll deletes each name at the top: overlayfs does not look for the root's own mark.
func (c *completer) hideAll() error {
	for _, kid := range c.v.t.root.sortedKids() {
		if err := c.tw.whiteout(kid.name); err != nil {
			return err
		}
	}
	return nil
}

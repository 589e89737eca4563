package fileop

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/moby/patternmatcher"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// sources are the names in view that a copy means.
func sources(view *layer.View, a graph.FileCopy) ([]string, error) {
	src := cleanKeep(a.Src)
	for _, name := range a.Required {
		if _, err := view.Node(path.Join("/", name), true); err != nil {
			return nil, notFound(name, err)
		}
	}
	if !a.Wildcard {
		return []string{src}, nil
	}
	names, err := wildcards(nodeTree{view}, src, a.FollowSymlink)
	if err != nil {
		return nil, notFound(src, err)
	}
	if len(names) == 0 && !a.EmptyWildcard {
		return nil, &fs.PathError{Op: "copy", Path: src, Err: fs.ErrNotExist}
	}
	return names, nil
}

func notFound(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "copy", Path: name, Err: fs.ErrNotExist}
	}
	return err
}

func copyTo(ctx context.Context, u *layer.Upper, a graph.FileCopy, in Inputs, o Options) error {
	var view *layer.View
	var err error
	if a.Input == 0 {
		view, err = u.View()
	} else {
		view, err = in.view(a.Input)
	}
	if err != nil {
		return err
	}
	own, err := owner(a.Owner, in)
	if err != nil {
		return err
	}
	if !a.CreateDestPath {
		p, err := u.Root().Walk(a.Dest, true)
		if err != nil {
			return err
		}
		if _, ok := p.Parent().Entry(); !ok {
			return &fs.PathError{Op: "copy", Path: a.Dest, Err: fs.ErrNotExist}
		}
	}
	names, err := sources(view, a)
	if err != nil {
		return err
	}
	for _, name := range names {
		if a.Unpack {
			done, err := unpack(ctx, u, view, name, a, own, o)
			if err != nil {
				return fmt.Errorf("unpacking %s: %w", name, err)
			}
			if done {
				continue
			}
		}
		c, err := newCopier(ctx, a, own)
		if err != nil {
			return err
		}
		if err := c.copy(view, u, name, cleanKeep(a.Dest)); err != nil {
			return err
		}
	}
	return nil
}

// copier copies one source, file or tree.
type copier struct {
	ctx    context.Context //nolint:containedctx // lives as long as one copy
	own    *ids
	mode   *uint32
	text   []clause
	when   *time.Time
	filter filter
	follow bool
	into   bool // what is in a directory is copied, not the directory
	force  bool
	linked map[any]*layer.Place // by file of the source: its first copy
	above  []*pending
}

// pending is a directory above what is being copied, which is made when something in it is.
type pending struct {
	src  layer.Node
	dst  *layer.Place
	made bool
}

func newCopier(ctx context.Context, a graph.FileCopy, own *ids) (*copier, error) {
	c := &copier{
		ctx: ctx, own: own, mode: a.Mode, when: at(a.Time), follow: a.FollowSymlink, into: a.DirContents, force: a.ReplaceExisting,
		linked: map[any]*layer.Place{},
	}
	var err error
	if a.ModeText != "" {
		if c.text, err = parseMode(a.ModeText); err != nil {
			return nil, err
		}
		c.mode = nil
	}
	c.filter, err = newFilter(a)
	return c, err
}

// dirMode is the mode of directories that no source is copied to.
func (c *copier) dirMode() int64 {
	if c.mode != nil {
		return int64(*c.mode & 0o777)
	}
	return 0o755
}

// copy copies src of view to dst, which says by its end whether it is a directory.
func (c *copier) copy(view *layer.View, u *layer.Upper, src, dst string) error {
	ensure := dst
	if dir, base := path.Split(dst); base != "" && base != "." {
		ensure = dir
	}
	d, err := u.Root().Walk(ensure, true)
	if err != nil {
		return err
	}
	if err := mkdirAll(d, c.dirMode(), c.own, c.when); err != nil {
		return err
	}
	target, err := u.Root().Walk(path.Clean(dst), true)
	if err != nil {
		return err
	}
	from, err := sourceNode(view, src, c.follow)
	if err != nil {
		return notFound(src, err)
	}
	_, exists := target.Entry()
	if from.IsDir() && exists && !c.into || !from.IsDir() && target.IsDir() {
		target = target.Kid(path.Base(src))
	}
	parent := target.Parent()
	if c.into && from.IsDir() && !exists {
		parent = target
	}
	if err := mkdirAll(parent, c.dirMode(), c.own, c.when); err != nil {
		return err
	}
	return c.tree(from, target, "", matched{}, false)
}

// sourceNode finds what is copied; without follow a symlink as the last component is copied itself.
func sourceNode(view *layer.View, src string, follow bool) (layer.Node, error) {
	src = path.Join("/", src)
	return view.Node(src, follow)
}

// tree copies a node, which is called rel below the source, to dst. over says that a directory that is there
// gets the metadata of the source's.
func (c *copier) tree(n layer.Node, dst *layer.Place, rel string, in matched, over bool) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	include, excluded, m, err := c.filter.match(rel, in)
	if err != nil {
		return err
	}
	e := n.Entry()
	if n.Path() == "." {
		e.Name = "."
	}
	if !n.IsDir() {
		if !include {
			return nil
		}
		if c.force && dst.IsDir() {
			if err := dst.Remove(); err != nil {
				return err
			}
		}
		if err := c.parents(over); err != nil {
			return err
		}
		return c.file(n, e, dst)
	}
	made := false
	if include && c.filter == (filter{}) {
		if _, ok := dst.Entry(); !ok {
			if done, err := c.graft(n, dst, over); done || err != nil {
				return err
			}
		}
	}
	if include {
		if _, ok := dst.Entry(); ok && !dst.IsDir() && c.force {
			if err := dst.Remove(); err != nil {
				return err
			}
		}
		if err := c.parents(over); err != nil {
			return err
		}
		if made, err = c.directory(e, dst, over); err != nil {
			return err
		}
	}
	if !excluded || c.filter.exceptions() {
		c.above = append(c.above, &pending{n, dst, include})
		for _, kid := range n.Kids() {
			if err := c.tree(kid, dst.Kid(kid.Base()), path.Join(rel, kid.Base()), m, true); err != nil {
				return err
			}
		}
		c.above = c.above[:len(c.above)-1]
	} else {
		made = false
	}
	switch {
	case !include:
		return nil
	case made || over:
		return dst.Set(c.metadata(e, dst))
	}
	now, ok := dst.Entry()
	if !ok {
		return nil
	}
	now.ModTime = c.time(e, dst)
	return dst.Set(now)
}

// graft copies a directory whole, if nothing in it gets other metadata by that, and reports whether it did.
func (c *copier) graft(n layer.Node, dst *layer.Place, over bool) (done bool, err error) {
	if err := c.parents(over); err != nil {
		return false, err
	}
	return dst.Graft(n, func(e layer.Entry) bool {
		m := c.metadata(e, dst)
		return m.UID == e.UID && m.GID == e.GID && m.Mode == e.Mode && m.ModTime.Equal(e.ModTime)
	})
}

// directory makes the directory dst like e, or checks that there is one.
func (c *copier) directory(e layer.Entry, dst *layer.Place, over bool) (made bool, err error) {
	now, ok := dst.Entry()
	switch {
	case !ok:
		return true, dst.Mkdir(e.Mode)
	case !dst.IsDir():
		return false, &fs.PathError{Op: "copy", Path: "/" + dst.Path(), Err: fmt.Errorf("%w: it is no directory", ErrConflict)}
	case over:
		now.Mode = e.Mode
		return false, dst.Set(now)
	}
	return false, nil
}

// parents makes the directories above that were waiting for something in them.
func (c *copier) parents(over bool) error {
	for _, p := range c.above {
		if p.made {
			continue
		}
		e := p.src.Entry()
		made, err := c.directory(e, p.dst, over)
		if err != nil {
			return err
		}
		if made {
			if err := p.dst.Set(c.metadata(e, p.dst)); err != nil {
				return err
			}
		}
		p.made = true
	}
	return nil
}

// file copies anything but a directory.
func (c *copier) file(n layer.Node, e layer.Entry, dst *layer.Place) error {
	if dst.IsDir() {
		return &fs.PathError{Op: "copy", Path: "/" + dst.Path(), Err: fmt.Errorf("%w by a file: it is a directory", ErrConflict)}
	}
	if err := dst.Remove(); err != nil {
		return err
	}
	id, links := n.File()
	if first := c.linked[id]; links > 1 && first != nil && e.Type == tar.TypeReg {
		if err := dst.Link(first); err != nil {
			return err
		}
		return dst.Set(c.metadata(e, dst))
	}
	if err := dst.PutNode(n); err != nil {
		return err
	}
	if links > 1 && e.Type == tar.TypeReg {
		c.linked[id] = dst
	}
	return dst.Set(c.metadata(e, dst))
}

// metadata is what the copy of e gets.
func (c *copier) metadata(e layer.Entry, dst *layer.Place) layer.Entry {
	if c.own != nil {
		e.UID, e.GID = c.own.uid, c.own.gid
	}
	switch {
	case e.Type == tar.TypeSymlink:
	case c.text != nil:
		e.Mode = applyMode(c.text, e.Mode, e.Type == tar.TypeDir)
	case c.mode != nil:
		e.Mode = int64(*c.mode) & 0o7777
	}
	e.ModTime = c.time(e, dst)
	return e
}

// time is what the copy of e gets. The root directory of a source has no time that an image knows: it was made just now.
func (c *copier) time(e layer.Entry, dst *layer.Place) time.Time {
	switch {
	case c.when != nil:
		return *c.when
	case e.Name == ".":
		return dst.Now()
	}
	return e.ModTime
}

// filter chooses what of a tree is copied.
type filter struct {
	include, exclude *patternmatcher.PatternMatcher
}

// matched is what the patterns said of the directory above.
type matched struct{ include, exclude patternmatcher.MatchInfo }

func newFilter(a graph.FileCopy) (f filter, err error) {
	if len(a.Include) > 0 {
		if f.include, err = patternmatcher.New(a.Include); err != nil {
			return f, fmt.Errorf("patterns %s: %w", strings.Join(a.Include, " "), err)
		}
	}
	if len(a.Exclude) > 0 {
		if f.exclude, err = patternmatcher.New(a.Exclude); err != nil {
			return f, fmt.Errorf("patterns %s: %w", strings.Join(a.Exclude, " "), err)
		}
	}
	return f, nil
}

// match says of a name below the source whether it is copied; "" is the source itself.
func (f filter) match(rel string, above matched) (include, excluded bool, m matched, err error) {
	if rel == "" {
		return true, false, m, nil
	}
	include = true
	if f.include != nil {
		if include, m.include, err = f.include.MatchesUsingParentResults(rel, above.include); err != nil {
			return false, false, m, fmt.Errorf("matching %q: %w", rel, err)
		}
	}
	if f.exclude != nil {
		if excluded, m.exclude, err = f.exclude.MatchesUsingParentResults(rel, above.exclude); err != nil {
			return false, false, m, fmt.Errorf("matching %q: %w", rel, err)
		}
	}
	return include && !excluded, excluded, m, nil
}

// exceptions reports whether something below what is excluded may not be.
func (f filter) exceptions() bool { return f.exclude != nil && f.exclude.Exclusions() }

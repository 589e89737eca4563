package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Permission bits of what does not declare any.
const (
	plainMode = 0o644
	execMode  = 0o755
	dirMode   = 0o755
)

// imagePath expands and checks a path in the image: absolute, in its shortest form.
func (c *chain) imagePath(t *template, what string, rootOK bool) (string, bool) {
	s, ok := c.expand(t)
	if !ok {
		return "", false
	}
	return s, c.checkPath(t.n, s, what, rootOK)
}

func (c *chain) checkPath(at *node, s, what string, rootOK bool) bool {
	parts := strings.Split(s, "/")
	long := len(s) > 4095
	for _, p := range parts {
		long = long || len(p) > 255
	}
	switch {
	case s == "":
		c.r.at(at, "", "%s is empty", what)
	case strings.ContainsRune(s, 0):
		c.r.at(at, "", "%s holds a NUL byte", what)
	case !strings.HasPrefix(s, "/"):
		c.r.at(at, "write \""+clean(path.Clean("/"+s))+"\"", "%s %q is not absolute", what, s)
	case hasDotDot(parts):
		c.r.at(at, "", "%s %q holds \"..\"", what, s)
	case long:
		c.r.at(at, "", "%s is too long: at most 255 bytes between slashes and 4095 in all", what)
	case path.Clean(s) != s:
		c.r.at(at, "write \""+clean(path.Clean(s))+"\"", "%s %q is not in its shortest form: it is always the final name", what, s)
	case s == "/" && !rootOK:
		c.r.at(at, "", "%s is the root directory", what)
	default:
		return true
	}
	return false
}

func hasDotDot(parts []string) bool {
	for _, p := range parts {
		if p == ".." {
			return true
		}
	}
	return false
}

// files makes the layer of a files step.
func (c *chain) files(base *graph.Vertex, s *step) *graph.Vertex {
	op, ok := c.layers[s]
	if !ok {
		if op, ok = c.entries(s); !ok {
			return nil
		}
		if !s.differs() {
			c.layers[s] = op
		}
	}
	return c.make(op, platform.Platform{}, s, historyFiles(op), base)
}

// differs reports whether a files step may be another one for each target.
func (s *step) differs() bool {
	for _, f := range s.files {
		for _, t := range []*template{f.path, f.source, f.target, f.body} {
			if t != nil && slices.ContainsFunc(t.parts, func(p part) bool { return isPredefined(p.name) }) {
				return true
			}
		}
	}
	return false
}

// entries makes the operation of a files step; false when something was reported.
func (c *chain) entries(s *step) (graph.Layer, bool) {
	before := c.r.count + len(c.others)
	op := graph.Layer{Entries: []graph.Entry{}, Time: c.created()}
	declared := map[string]bool{} // what a directory of a source may find there
	for _, f := range s.files {
		if f.bad {
			continue
		}
		for _, e := range c.file(f) {
			if e.IfMissing && declared[e.Path] {
				continue
			}
			declared[e.Path] = e.Type == graph.TypeDirectory || e.Type == graph.TypeSymlink
			op.Entries = append(op.Entries, e)
		}
	}
	if c.r.count+len(c.others) > before {
		return op, false
	}
	c.checkEntries(s, op.Entries)
	return op, true
}

// file makes the entries of one declaration.
func (c *chain) file(f *file) []graph.Entry {
	p, ok := c.imagePath(f.path, "path", f.typ.s == "directory" || f.source != nil)
	if !ok && f.source == nil {
		return nil
	}
	e := graph.Entry{Path: p, Owner: f.owner.s, Time: c.created(), At: c.r.where(f.n)}
	if len(f.xattrs) > 0 {
		e.Xattrs = f.xattrs
	}
	if f.mtime != nil {
		e.Time = *f.mtime
	}
	if f.source != nil {
		return c.sourced(f, e, ok)
	}
	e.Type, e.Mode, e.Major, e.Minor = graph.EntryType(f.typ.s), f.mode, f.major, f.minor
	switch e.Type {
	case "":
		e.Type = graph.TypeFile
		fallthrough
	case graph.TypeFile:
		e.Mode = modeOr(f.mode, plainMode)
		e.Content = []byte(f.content.s)
		if f.expand && f.body != nil {
			s, ok := c.expand(f.body)
			if !ok {
				return nil
			}
			e.Content = []byte(s)
		}
	case graph.TypeDirectory:
		e.Mode = modeOr(f.mode, dirMode)
	case graph.TypeSymlink:
		if e.Target, ok = c.linkTarget(f.target); !ok {
			return nil
		}
	case graph.TypeHardlink:
		if e.Target, ok = c.imagePath(f.target, "target", false); !ok {
			return nil
		}
		if e.Target == e.Path {
			c.r.at(f.target.n, "", "a hard link to itself")
			return nil
		}
	default:
		e.Mode = modeOr(f.mode, plainMode)
	}
	return []graph.Entry{e}
}

func modeOr(m *uint32, other uint32) *uint32 {
	if m != nil {
		v := *m
		return &v
	}
	return &other
}

// linkTarget expands what a symlink says: anything that a file system can hold.
func (c *chain) linkTarget(t *template) (string, bool) {
	s, ok := c.expand(t)
	switch {
	case !ok:
		return "", false
	case s == "" || len(s) > 4095 || strings.ContainsRune(s, 0):
		c.r.at(t.n, "", "the target of a symlink is from 1 to 4095 bytes without NUL")
		return "", false
	}
	return s, true
}

// checkEntries finds what cannot all be in one layer, and what is there twice.
func (c *chain) checkEntries(s *step, entries []graph.Entry) {
	at := func(e graph.Entry) *node {
		for _, f := range s.files {
			if c.r.where(f.n) == e.At {
				return f.n
			}
		}
		return s.n
	}
	last := map[string]graph.Entry{}
	for _, e := range entries {
		have, ok := last[e.Path]
		switch {
		case ok && e.IfMissing: // a directory or a symlink came out of the list above
			c.r.at(at(e), "", "%s is a directory here and a %s in %s", e.Path, have.Type, have.At)
		case ok && have.At != e.At && !have.IfMissing:
			c.r.warn(at(e), "%s is declared before in %s; this one is used", e.Path, have.At)
		}
		last[e.Path] = e
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "/" && dir != "."; dir = path.Dir(dir) {
			if over, ok := last[dir]; ok && over.Type != graph.TypeDirectory && over.Type != graph.TypeSymlink {
				c.r.at(at(e), "", "%s lies below %s, which is a %s in %s", e.Path, dir, over.Type, over.At)
				return
			}
		}
	}
}

// archive makes the layer of an archive step.
func (c *chain) archive(base *graph.Vertex, s *step) *graph.Vertex {
	a := s.archive
	p, ok := c.imagePath(a.path, "path", true)
	if src, okSource := c.expand(a.source); okSource && isGlob(src) {
		c.r.at(a.source.n, "one step for each archive", "the source of an archive is one file, %q is a pattern", src)
		return nil
	}
	dir, name, info := c.look(a.source, a.context, "source")
	if dir == nil || !ok {
		return nil
	}
	if info.IsDir() {
		c.r.at(a.source.n, "use files for a directory", "source %q is a directory, not an archive", a.source)
		return nil
	}
	op := graph.Layer{Time: c.created(), Entries: []graph.Entry{{
		Type: graph.TypeArchive, Path: p, Context: dir.name, Source: name, Time: c.created(), At: c.r.where(a.n),
	}}}
	return c.make(op, platform.Platform{}, s, "ARCHIVE "+name+" "+p, base)
}

package spec

import (
	"errors"
	"io/fs"
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

// sourceName expands and checks the name of a source: relative to its context and in it.
func (c *chain) sourceName(t *template, what string) (string, bool) {
	s, ok := c.expand(t)
	if !ok {
		return "", false
	}
	switch {
	case s == "":
		c.r.at(t.n, `"." is all of the context`, "%s is empty", what)
	case strings.ContainsRune(s, 0):
		c.r.at(t.n, "", "%s holds a NUL byte", what)
	case strings.HasPrefix(s, "/"):
		c.r.at(t.n, "sources are relative to the context", "%s %q is absolute", what, s)
	case hasDotDot(strings.Split(s, "/")) && outside(s):
		c.r.at(t.n, "--build-context NAME=DIR adds another directory", "%s %q is outside of the context", what, s)
	default:
		return path.Clean(s), true
	}
	return "", false
}

func outside(s string) bool {
	s = path.Clean(s)
	return s == ".." || strings.HasPrefix(s, "../")
}

// look finds a source that is named without a glob; "" after reporting why it cannot be used.
func (c *chain) look(t *template, contextName text, what string) (dir *contextDir, name string, info fs.FileInfo) {
	name, ok := c.sourceName(t, what)
	if !ok {
		return nil, "", nil
	}
	if dir = c.contextOf(contextName, t.n); dir == nil {
		return nil, "", nil
	}
	real, info, err := dir.resolve(name)
	switch {
	case err != nil:
		c.sourceError(t, what, name, dir, err)
		return nil, "", nil
	case dir.ignored(name, info.IsDir()):
		c.leftOut(t.n, what, name)
		return nil, "", nil
	case dir.ignored(real, info.IsDir()):
		c.r.at(t.n, "", "%s %q is a link to %q, which is left out by %s", what, name, real, ignoreName)
		return nil, "", nil
	case !info.IsDir() && !info.Mode().IsRegular():
		c.r.at(t.n, "", "%s %q is %s", what, name, typeName(info.Mode()))
		return nil, "", nil
	}
	return dir, real, info
}

// leftOut reports a source that .dockerignore excludes.
func (c *chain) leftOut(at *node, what, name string) {
	c.r.at(at, "add \"!"+clean(name)+"\" to it", "%s %q is left out by %s", what, name, ignoreName)
}

// contextOf returns the context that an entry names, by default the main one.
func (c *chain) contextOf(name text, at *node) *contextDir {
	if !name.set() {
		name = text{mainContext, at}
	}
	dir := c.context(name.s, name.n)
	if dir != nil {
		c.used[name.s] = true
	}
	return dir
}

// sourceError reports a source that cannot be used.
func (c *chain) sourceError(t *template, what, name string, dir *contextDir, err error) {
	at := t.n
	in := "the context"
	if dir.name != mainContext {
		in = "context " + dir.name
	}
	var below *walkError
	switch {
	case c.ctx.Err() != nil:
	case errors.As(err, &below):
		c.r.add(at.line, at.col, err, "", "%s %q: %v", what, name, below)
	case errors.Is(err, fs.ErrNotExist):
		c.r.add(at.line, at.col, err, c.missing(t, dir, name), "%s %q does not exist in %s%s", what, name, in, c.forTarget(t))
	default:
		c.r.add(at.line, at.col, err, "", "%s %q: %v", what, name, err)
	}
}

// varies reports whether a source may be another one for each target.
func (t *template) varies() bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.name != "" })
}

// forTarget says for which of several targets something is.
func (c *chain) forTarget(t *template) string {
	if c.shared || c.targets < 2 || !t.varies() {
		return ""
	}
	return " (for " + c.targetPlan.platform.String() + ")"
}

// missing suggests a name that is there; not for one with variables: it would be another target's.
func (c *chain) missing(t *template, dir *contextDir, name string) string {
	if t.varies() {
		return ""
	}
	parent := path.Dir(name)
	real, info, err := dir.resolve(parent)
	if err != nil || !info.IsDir() {
		return ""
	}
	w := walker{c: dir, ctx: c.ctx}
	entries, err := w.read(real)
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if best := nearest(path.Base(name), names); best != "" {
		return "did you mean \"" + clean(path.Join(parent, best)) + "\"?"
	}
	return ""
}

// files makes the layer of a files step.
func (c *chain) files(base *graph.Vertex, s *step) *graph.Vertex {
	before := c.r.count + len(c.others)
	op := graph.Layer{Entries: []graph.Entry{}}
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
		return nil
	}
	c.checkEntries(s, op.Entries)
	return c.make(op, platform.Platform{}, s, historyFiles(op), base)
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

// sourced makes the entries of a declaration with a source: a file, a directory or a glob.
func (c *chain) sourced(f *file, e graph.Entry, pathOK bool) []graph.Entry {
	if s, ok := c.expand(f.source); !ok {
		return nil
	} else if isGlob(s) {
		return c.globbed(f, e, pathOK)
	}
	dir, name, info := c.look(f.source, f.context, "source")
	if dir == nil || !pathOK {
		return nil
	}
	switch {
	case info.IsDir() && f.typ.s == "file":
		c.r.at(f.source.n, "remove type, or set it to directory", "source %q is a directory", f.source)
		return nil
	case !info.IsDir() && f.typ.s == "directory":
		c.r.at(f.source.n, "", "source %q is a file", f.source)
		return nil
	case !info.IsDir() && f.dirMode != nil:
		c.r.at(f.keys["dir_mode"], "use mode", "dir_mode goes with a directory, the source is a file")
		return nil
	case !info.IsDir() && e.Path == "/":
		c.r.at(f.path.n, "path is the final name of the file", "path is the root directory")
		return nil
	case !info.IsDir():
		return []graph.Entry{c.fromFile(f, e, dir, name, info)}
	}
	list, err := dir.walk(c.ctx, name, "")
	switch {
	case err != nil:
		c.sourceError(f.source, "source", name, dir, err)
		return nil
	case len(list) == 0 && dir.ignore != nil && !c.isEmpty(dir, name):
		c.leftOut(f.source.n, "everything in source", name)
		return nil
	}
	return c.tree(f, e, dir, list)
}

// globbed makes the entries of a source with special characters: path is the directory that what matches goes to.
func (c *chain) globbed(f *file, e graph.Entry, pathOK bool) []graph.Entry {
	pattern, ok := c.sourceName(f.source, "source")
	if !ok || !pathOK {
		return nil
	}
	fixed, rest := splitGlob(pattern)
	for _, part := range strings.Split(rest, "/") {
		if _, err := path.Match(part, ""); err != nil {
			c.r.at(f.source.n, `[ begins a set of characters; \[ is the character itself`, "source %q is not a pattern", pattern)
			return nil
		}
	}
	if f.typ.s == "directory" {
		c.r.at(f.typ.n, "remove it", "type directory does not go with a pattern")
		return nil
	}
	dir := c.contextOf(f.context, f.source.n)
	if dir == nil {
		return nil
	}
	var list []found
	real, info, err := dir.resolve(fixed)
	if err == nil && info.IsDir() {
		list, err = dir.walk(c.ctx, real, rest)
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		c.sourceError(f.source, "source", pattern, dir, err)
		return nil
	case len(list) == 0:
		hint := ""
		if dir.ignore != nil {
			hint = "files that " + ignoreName + " leaves out do not count"
		}
		c.r.at(f.source.n, hint, "source %q matches nothing%s", pattern, c.forTarget(f.source))
		return nil
	}
	return c.tree(f, e, dir, list)
}

// isEmpty reports whether a directory has nothing in it at all.
func (c *chain) isEmpty(dir *contextDir, name string) bool {
	w := walker{c: dir, ctx: c.ctx}
	entries, err := w.read(name)
	return err == nil && len(entries) == 0
}

// tree makes the entries of several files below e.Path. Directories come along without touching those that the rootfs has.
func (c *chain) tree(f *file, e graph.Entry, dir *contextDir, list []found) []graph.Entry {
	top := e
	top.Type, top.Mode, top.IfMissing, top.Xattrs = graph.TypeDirectory, modeOr(f.dirMode, dirMode), true, nil
	out := []graph.Entry{top}
	if e.Path == "/" {
		out = nil
	}
	for _, one := range list {
		n := e
		n.Path = path.Join(e.Path, one.rel)
		switch {
		case one.info.IsDir():
			n.Type, n.Mode, n.IfMissing, n.Xattrs = graph.TypeDirectory, modeOr(f.dirMode, dirMode), true, nil
		case one.info.Mode()&fs.ModeSymlink != 0:
			n.Type, n.Target, n.Xattrs = graph.TypeSymlink, one.link, nil
		default:
			n = c.fromFile(f, n, dir, one.name, one.info)
		}
		if !c.checkPath(f.source.n, n.Path, "the path of "+one.name, false) {
			return nil
		}
		out = append(out, n)
	}
	return out
}

// fromFile makes the entry of one regular file of a context.
func (c *chain) fromFile(f *file, e graph.Entry, dir *contextDir, name string, info fs.FileInfo) graph.Entry {
	e.Type, e.Context, e.Source = graph.TypeFile, dir.name, name
	def := uint32(plainMode)
	if info.Mode().Perm()&0o111 != 0 {
		def = execMode
	}
	e.Mode = modeOr(f.mode, def)
	return e
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
	op := graph.Layer{Entries: []graph.Entry{{
		Type: graph.TypeArchive, Path: p, Context: dir.name, Source: name, Time: c.created(), At: c.r.where(a.n),
	}}}
	return c.make(op, platform.Platform{}, s, "ARCHIVE "+name+" "+p, base)
}

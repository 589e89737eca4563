package spec

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

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

package spec

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// remove makes the layer of a remove step.
func (c *chain) remove(base *graph.Vertex, s *step) *graph.Vertex {
	op := graph.Remove{Paths: []string{}}
	all := true
	for _, t := range s.remove {
		p, ok := c.imagePath(t, "a path to remove", false)
		all = ok && c.checkGlob(t, p) && all
		op.Paths = append(op.Paths, p)
	}
	if !all {
		return nil
	}
	if base == nil {
		c.r.at(s.n, "", "there is nothing to remove from: the rootfs is empty")
		return nil
	}
	return c.make(op, platform.Platform{}, s, "REMOVE "+listed(op.Paths), base)
}

func (c *chain) checkGlob(t *template, p string) bool {
	for _, part := range strings.Split(p, "/") {
		if _, err := path.Match(part, ""); err != nil {
			c.r.at(t.n, `[ begins a set of characters; \[ is the character itself`, "%q is not a pattern", p)
			return false
		}
	}
	return true
}

// copy makes the layer of a copy step.
func (c *chain) copy(base *graph.Vertex, s *step) *graph.Vertex {
	v := s.copy
	p, ok := c.imagePath(v.path, "path", true)
	src, okSource := c.imagePath(v.source, "source", true)
	okSource = okSource && c.checkGlob(v.source, src)
	from, okFrom := c.expand(v.from)
	if !okFrom {
		return nil
	}
	input, okFrom := c.image(from, v.from.n)
	if !ok || !okSource || !okFrom {
		return nil
	}
	if input == nil {
		c.r.at(v.from.n, "", "there is nothing to copy: %s is empty", from)
		return nil
	}
	op := graph.Copy{Source: src, Path: p, Owner: v.owner.s, Mode: v.mode, Time: c.created()}
	return c.make(op, platform.Platform{}, s, "COPY "+src+" "+p, base, input)
}

// exec makes the layer of a run step.
func (c *chain) exec(base *graph.Vertex, s *step) *graph.Vertex {
	r := s.run
	op := graph.Exec{Args: texts(r.argv), Network: r.network, User: r.user.s, ClampTime: c.o.Epoch}
	if r.shell != nil {
		op.Args = []string{"/bin/sh", "-c"}
		if len(r.interp) > 0 {
			op.Args = texts(r.interp)
		}
		op.Args = append(op.Args, r.script)
	}
	ok := true
	if r.workdir != nil {
		op.Cwd, ok = c.imagePath(r.workdir, "workdir", true)
		if ok && kernelPath(op.Cwd) {
			c.r.at(r.workdir.n, "", "workdir %s is the kernel's", op.Cwd)
			ok = false
		}
	}
	env := c.environment()
	for _, e := range r.env {
		value, good := c.expand(e.value)
		ok = ok && good
		env[e.key.text] = value
	}
	op.Env = []string{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		op.Env = append(op.Env, name+"="+env[name])
	}
	inputs := []*graph.Vertex{base}
	targets := map[string]bool{}
	for _, m := range r.mounts {
		mt, input, good := c.mount(m)
		if !good {
			ok = false
			continue
		}
		if mt.Target != "" && targets[mt.Target] {
			c.r.at(m.n, "", "two mounts at %s", mt.Target)
			ok = false
		}
		targets[mt.Target] = true
		if input != nil {
			mt.Input = len(inputs)
			inputs = append(inputs, input)
		}
		op.Mounts = append(op.Mounts, mt)
	}
	if !ok {
		return nil
	}
	return c.make(op, c.platform, s, historyRun(op), inputs...)
}

// kernelPath reports whether p is in a file system that the kernel makes.
func kernelPath(p string) bool {
	for _, k := range []string{"/proc", "/sys"} {
		if p == k || strings.HasPrefix(p, k+"/") {
			return true
		}
	}
	return false
}

// environment is what every step of the chain sees: the arguments, the target's names, and
// SOURCE_DATE_EPOCH. The machine's own (BUILD*) are left out: they would make its caches nobody else's.
func (c *chain) environment() map[string]string {
	env := map[string]string{}
	for name, value := range c.vars {
		if value != nil && !strings.HasPrefix(name, "BUILD") {
			env[name] = *value
		}
	}
	for name, value := range c.args {
		if value != nil {
			env[name] = *value
		}
	}
	if c.o.Epoch != nil {
		env["SOURCE_DATE_EPOCH"] = strconv.FormatInt(*c.o.Epoch, 10)
	}
	return env
}

// mount makes one mount of a run step, and its input when it has one.
func (c *chain) mount(m *mount) (out graph.Mount, input *graph.Vertex, ok bool) {
	if m.bad {
		return out, nil, false
	}
	out = graph.Mount{
		Type: graph.MountType(m.typ.s), Writable: m.writable, Size: m.size, Mode: m.mode,
		UID: int(m.uid), GID: int(m.gid), Required: m.required, Env: m.env.s, Sharing: m.sharing.s,
	}
	ok = true
	if m.target != nil {
		out.Target, ok = c.imagePath(m.target, "target", false)
		if ok && kernelPath(out.Target) {
			c.r.at(m.target.n, "", "target %s is the kernel's", out.Target)
			ok = false
		}
	}
	if m.id != nil {
		id, good := c.expand(m.id)
		if good && (id == "" || len(id) > 255 || strings.ContainsAny(id, "\x00\n")) {
			c.r.at(m.id.n, "", "the id of a mount is from 1 to 255 bytes on one line")
			good = false
		}
		out.ID, ok = id, ok && good
	}
	switch out.Type {
	case graph.MountCache:
		if out.ID == "" {
			out.ID = out.Target
		}
		if out.Sharing == "" {
			out.Sharing = "shared"
		}
	case graph.MountSecret:
		if out.Target == "" && out.Env == "" {
			out.Target = "/run/secrets/" + out.ID
			ok = ok && m.id != nil && c.checkPath(m.id.n, out.Target, "the target of the secret", false)
		}
	}
	if m.from == nil && out.Type != graph.MountBind || !ok {
		return out, nil, ok
	}
	if m.from != nil {
		input, ok = c.mountFrom(m, &out)
		return out, input, ok
	}
	dir, name, _ := c.look(m.source, m.context, "source")
	if dir == nil {
		return out, nil, false
	}
	out.Source = path.Join("/", name)
	local := graph.Local{Context: dir.name, Paths: []string{name}, Exclude: dir.patterns}
	meta := graph.Meta{Name: "CONTEXT " + name, Source: c.source(m.n)}
	return out, c.intern(graph.New(local, platform.Platform{}, meta), c.targetPlan.platform), true
}

// mountFrom resolves the stage or image that a mount shows.
func (c *chain) mountFrom(m *mount, out *graph.Mount) (*graph.Vertex, bool) {
	from, ok := c.expand(m.from)
	if !ok {
		return nil, false
	}
	out.Source = "/"
	if m.source != nil {
		if out.Source, ok = c.imagePath(m.source, "source", true); !ok {
			return nil, false
		}
	}
	input, ok := c.image(from, m.from.n)
	if ok && input == nil {
		c.r.at(m.from.n, "", "there is nothing to mount: %s is empty", from)
		return nil, false
	}
	return input, ok
}

package spec

import (
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

var mountObject = object[mount]{"a mount", []field[mount]{
	{"type", func(d *decoder, v *mount, n *node) { v.typ = text{d.oneOf(n, "type", mountTypes...), n} }},
	{"target", func(d *decoder, v *mount, n *node) { v.target = d.template(n, "target") }},
	{"from", func(d *decoder, v *mount, n *node) { v.from = d.template(n, "from") }},
	{"source", func(d *decoder, v *mount, n *node) { v.source = d.template(n, "source") }},
	{"context", func(d *decoder, v *mount, n *node) { v.context = d.str(n, "context") }},
	{"writable", func(d *decoder, v *mount, n *node) { v.writable = d.boolean(n, "writable") }},
	{"id", func(d *decoder, v *mount, n *node) { v.id = d.template(n, "id") }},
	{"sharing", func(d *decoder, v *mount, n *node) {
		v.sharing = text{d.oneOf(n, "sharing", "shared", "private", "locked"), n}
	}},
	{"size", func(d *decoder, v *mount, n *node) { v.size = d.size(n) }},
	{"mode", func(d *decoder, v *mount, n *node) { v.mode = d.mode(n, "mode") }},
	{"uid", func(d *decoder, v *mount, n *node) { v.uid = d.number(n, "uid", 0, maxID) }},
	{"gid", func(d *decoder, v *mount, n *node) { v.gid = d.number(n, "gid", 0, maxID) }},
	{"required", func(d *decoder, v *mount, n *node) { v.required = d.boolean(n, "required") }},
	{"env", func(d *decoder, v *mount, n *node) { v.env = d.str(n, "env") }},
}}

var mountTypes = []string{
	string(graph.MountBind), string(graph.MountCache), string(graph.MountTmpfs), string(graph.MountSecret),
}

// mountKeys are the keys that go with each type, besides type and target.
var mountKeys = map[string][]string{
	"bind":   {"from", "source", "context", "writable"},
	"cache":  {"from", "source", "id", "sharing", "mode", "uid", "gid"},
	"tmpfs":  {"size"},
	"secret": {"id", "env", "mode", "uid", "gid", "required"},
}

func (d *decoder) mounts(n *node) []*mount {
	var out []*mount
	d.list(n, "mounts", func(item *node) {
		m := &mount{n: item, keys: map[string]*node{}}
		before := d.mistakes()
		if mountObject.decode(d, item, m) {
			for _, k := range item.keys {
				m.keys[k.text] = k
			}
			d.checkMount(m)
		}
		m.bad = d.mistakes() > before
		out = append(out, m)
	})
	return out
}

// checkMount checks which keys are there together.
func (d *decoder) checkMount(m *mount) {
	if m.keys["type"] == nil {
		d.r.at(m.n, strings.Join(mountTypes, ", "), "a mount has no type")
		return
	}
	kind := m.typ.s
	if kind == "" { // reported
		return
	}
keys:
	for _, k := range m.n.keys {
		if k.text == "type" || k.text == "target" {
			continue
		}
		for _, ok := range mountKeys[kind] {
			if ok == k.text {
				continue keys
			}
		}
		for _, f := range mountObject.fields {
			if f.name == k.text {
				d.r.at(k, "", "%s does not go with a %s mount", k.text, kind)
			}
		}
	}
	if m.keys["target"] == nil && kind != "secret" {
		d.r.at(m.n, "", "a %s mount has no target", kind)
	}
	switch kind {
	case "bind":
		if m.keys["from"] == nil && m.keys["source"] == nil {
			d.r.at(m.n, `source: "." is all of the context`, "a bind mount has source or from")
		}
		if m.keys["from"] != nil && m.keys["context"] != nil {
			d.r.at(m.keys["context"], "", "context and from in one mount")
		}
	case "cache":
		if m.keys["source"] != nil && m.keys["from"] == nil {
			d.r.at(m.keys["source"], "", "the source of a cache mount goes with from")
		}
	case "secret":
		if m.keys["id"] == nil {
			d.r.at(m.n, "", "a secret mount has no id")
		}
		if m.keys["env"] != nil && m.keys["target"] != nil {
			d.r.at(m.keys["env"], "make two mounts of it", "a secret is a file or a variable: target and env in one mount")
		}
		if m.env.set() && !nameText().MatchString(m.env.s) {
			d.r.at(m.env.n, "", "%q is not a name of a variable", m.env.s)
		}
	}
}

// size reads bytes: a number, or with k, m, g (powers of 1024).
func (d *decoder) size(n *node) int64 {
	s, factor := strings.ToLower(n.text), int64(1)
	s = strings.TrimSuffix(s, "b")
	for i, unit := range []string{"k", "m", "g", "t"} {
		if trimmed, ok := strings.CutSuffix(s, unit); ok {
			s, factor = trimmed, 1<<(10*(i+1))
			break
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if (n.kind != kindNumber && n.kind != kindString) || !decimal().MatchString(s) || err != nil || v < 1 || v > (1<<62)/factor {
		d.r.at(n, `bytes, or "64m"`, "%q is not a size", clean(n.text))
		return 0
	}
	return v * factor
}

package spec

import (
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

var stepObject = object[step]{"a step", []field[step]{
	{"files", func(d *decoder, v *step, n *node) { v.files = d.files(n) }},
	{"archive", func(d *decoder, v *step, n *node) { v.archive = d.archive(n) }},
	{"run", func(d *decoder, v *step, n *node) { d.run(v.runs(), n) }},
	{"remove", func(d *decoder, v *step, n *node) { v.remove = d.templateList(n, "remove") }},
	{"copy", func(d *decoder, v *step, n *node) { v.copy = d.copy(n) }},
	{"accounts", func(d *decoder, v *step, n *node) { v.accounts = d.accounts(n) }},
	{"name", func(d *decoder, v *step, n *node) { v.name = d.str(n, "name") }},
	{"when", func(d *decoder, v *step, n *node) { v.when = d.when(n) }},
	{"network", func(d *decoder, v *step, n *node) {
		v.runs().network = graph.Network(d.oneOf(n, "network", "none", "host"))
	}},
	{"env", func(d *decoder, v *step, n *node) { v.runs().env = d.env(n, "env", envName) }},
	{"mounts", func(d *decoder, v *step, n *node) { v.runs().mounts = d.mounts(n) }},
	{"user", func(d *decoder, v *step, n *node) { v.runs().user = d.owner(n, "user") }},
	{"workdir", func(d *decoder, v *step, n *node) { v.runs().workdir = d.template(n, "workdir") }},
	{"shell", func(d *decoder, v *step, n *node) { v.runs().interp = d.shell(n) }},
}}

// stepKinds are the keys of which a step has exactly one; runKeys go with run only.
var (
	stepKinds = []string{"files", "archive", "run", "remove", "copy", "accounts"}
	runKeys   = []string{"network", "env", "mounts", "user", "workdir", "shell"}
)

var whenObject = object[when]{"when", []field[when]{
	{"platforms", func(d *decoder, v *when, n *node) {
		for _, t := range d.strings(n, "when.platforms") {
			v.platforms = append(v.platforms, d.pattern(t, true))
		}
	}},
	{"args", func(d *decoder, v *when, n *node) {
		d.pairs(n, "when.args", func(k, val *node) {
			if t := d.scalar(val, "when.args."+k.text); t.set() {
				v.args = append(v.args, whenArg{k, t.s})
			}
		})
	}},
}}

var archiveObject = object[archive]{"archive", []field[archive]{
	{"source", func(d *decoder, v *archive, n *node) { v.source = d.template(n, "source") }},
	{"context", func(d *decoder, v *archive, n *node) { v.context = d.str(n, "context") }},
	{"path", func(d *decoder, v *archive, n *node) { v.path = d.template(n, "path") }},
}}

var copyObject = object[copyStep]{"copy", []field[copyStep]{
	{"from", func(d *decoder, v *copyStep, n *node) { v.from = d.template(n, "from") }},
	{"source", func(d *decoder, v *copyStep, n *node) { v.source = d.template(n, "source") }},
	{"path", func(d *decoder, v *copyStep, n *node) { v.path = d.template(n, "path") }},
	{"owner", func(d *decoder, v *copyStep, n *node) { v.owner = d.owner(n, "owner") }},
	{"mode", func(d *decoder, v *copyStep, n *node) { v.mode = d.mode(n, "mode") }},
}}

// runs is the run part of a step, made when the first of its keys comes.
func (s *step) runs() *run {
	if s.run == nil {
		s.run = &run{network: graph.NetworkNone}
	}
	return s.run
}

func (d *decoder) steps(n *node) []*step {
	var out []*step
	d.list(n, "steps", func(item *node) {
		s := &step{n: item, keys: map[string]*node{}}
		before := d.mistakes()
		if stepObject.decode(d, item, s) {
			for _, k := range item.keys {
				s.keys[k.text] = k
			}
			d.checkStep(s)
		}
		s.bad = d.mistakes() > before
		out = append(out, s)
	})
	return out
}

// checkStep checks that a step is of one kind and that its other keys belong to it.
func (d *decoder) checkStep(s *step) {
	var kinds []string
	for _, k := range stepKinds {
		if s.keys[k] != nil {
			kinds = append(kinds, k)
		}
	}
	switch {
	case len(kinds) == 0:
		d.r.at(s.n, "", "a step has one of %s", strings.Join(stepKinds, ", "))
		return
	case len(kinds) > 1:
		d.r.at(s.keys[kinds[1]], "make it a step of its own: every step is one layer", "%s and %s in one step", kinds[0], kinds[1])
		return
	}
	for _, k := range runKeys {
		if s.keys[k] != nil && kinds[0] != "run" {
			d.r.at(s.keys[k], "", "%s belongs to run, not to %s", k, kinds[0])
		}
	}
	if s.keys["shell"] != nil && s.run != nil && s.run.shell == nil && len(s.run.argv) > 0 {
		d.r.at(s.keys["shell"], "", "shell is for a run that is a string, this is a list")
	}
	if kinds[0] == "remove" && len(s.remove) == 0 && len(s.n.value("remove").values) == 0 && s.n.value("remove").kind == kindList {
		d.r.at(s.keys["remove"], "", "remove names nothing")
	}
}

func (d *decoder) when(n *node) *when {
	w := &when{}
	whenObject.decode(d, n, w)
	return w
}

// run reads a script for the shell or a list of arguments.
func (d *decoder) run(v *run, n *node) {
	if n.kind == kindList {
		v.argv = d.strings(n, "run")
		if len(v.argv) == 0 {
			d.r.at(n, "", "run has no command")
		} else if v.argv[0].s == "" {
			d.r.at(v.argv[0].n, "", "run has an empty command")
		}
		return
	}
	t := d.str(n, "run")
	if !t.set() {
		return
	}
	if strings.TrimSpace(t.s) == "" {
		d.r.at(n, "", "run has no command")
		return
	}
	v.shell, v.script = n, t.s
}

func (d *decoder) shell(n *node) []text {
	argv := d.strings(n, "shell")
	switch {
	case n.kind == kindNull || n.kind == kindList && len(n.values) == 0:
		d.r.at(n, `["/bin/sh", "-c"] is the default`, "shell has no command")
	case len(argv) > 0 && !strings.HasPrefix(argv[0].s, "/"):
		d.r.at(argv[0].n, "", "shell %q must be an absolute path", argv[0].s)
	}
	return argv
}

func (d *decoder) archive(n *node) *archive {
	v := &archive{n: n}
	if !archiveObject.decode(d, n, v) {
		return v
	}
	d.require(n, "archive", "source", "path")
	return v
}

func (d *decoder) copy(n *node) *copyStep {
	v := &copyStep{n: n}
	if !copyObject.decode(d, n, v) {
		return v
	}
	d.require(n, "copy", "from", "source", "path")
	return v
}

// require reports keys that an object lacks.
func (d *decoder) require(n *node, what string, keys ...string) {
	for _, k := range keys {
		if n.value(k) == nil {
			d.r.at(n, "", "%s has no %s", what, k)
		}
	}
}

// oneOf reads one of a few words.
func (d *decoder) oneOf(n *node, what string, words ...string) string {
	t := d.str(n, what)
	for _, w := range words {
		if t.s == w {
			return w
		}
	}
	if t.set() {
		hint := ""
		if best := nearest(t.s, words); best != "" {
			hint = "did you mean \"" + best + "\"?"
		} else if t.s == "device" {
			hint = "a device is char or block"
		}
		d.r.at(n, hint, "%s %q is not one of %s", what, t.s, strings.Join(words, ", "))
	}
	return ""
}

// anyName, envName and labelName check the keys of free mappings.
func anyName(k string) string {
	if k == "" {
		return "an empty name"
	}
	return ""
}

func envName(k string) string {
	if k == "" || strings.ContainsAny(k, "=\x00") {
		return "not a name of a variable"
	}
	return ""
}

// env reads a mapping of names to values with variables, or a list of NAME=value.
func (d *decoder) env(n *node, what string, check func(string) string) []envVar {
	var out []envVar
	add := func(k *node, value *template) {
		if problem := check(k.text); problem != "" {
			d.r.at(k, "", "%q is %s", k.text, problem)
			return
		}
		for _, have := range out {
			if have.key.text == k.text {
				d.r.at(k, "", "%s names %s twice", what, k.text)
				return
			}
		}
		if value != nil {
			out = append(out, envVar{k, value})
		}
	}
	if n.kind == kindList {
		for _, item := range n.values {
			t := d.str(item, "an item of "+what)
			if !t.set() {
				continue
			}
			name, value, ok := strings.Cut(t.s, "=")
			if !ok {
				d.r.at(item, "write "+strconv.Quote(t.s+"=value"), "an item of %s is not NAME=value", what)
				continue
			}
			key := *item
			key.text = name
			add(&key, d.newTemplate(text{value, item}))
		}
		return out
	}
	d.pairs(n, what, func(k, v *node) { add(k, d.template(v, what+"."+k.text)) })
	return out
}

// owner reads "user[:group]", names or numbers.
func (d *decoder) owner(n *node, what string) text {
	t := d.scalar(n, what)
	if !t.set() {
		return t
	}
	user, group, two := strings.Cut(t.s, ":")
	if !account(user) || two && !account(group) {
		d.r.at(n, `"user", "user:group" or numbers: "1000:1000"`, "%q is not %s", t.s, article(what))
		return text{}
	}
	return t
}

func article(what string) string {
	if strings.ContainsRune("aeio", rune(what[0])) {
		return "an " + what
	}
	return "a " + what
}

// account reports whether s can be a name or a number of a user or group.
func account(s string) bool {
	if s == "" || len(s) > 256 || strings.ContainsAny(s, ": \t\n\r,/\x00") {
		return false
	}
	if decimal().MatchString(s) {
		v, err := strconv.ParseUint(s, 10, 64)
		return err == nil && v <= maxID
	}
	return s[0] != '-' && s[0] != '+'
}

func texts(ts []text) []string {
	out := make([]string, 0, len(ts))
	for _, t := range ts {
		out = append(out, t.s)
	}
	return out
}

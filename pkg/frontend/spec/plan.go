package spec

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// planner makes the graph of a document, once for each platform.
type planner struct {
	ctx  context.Context //nolint:containedctx // lives for one call of Load
	r    *reporter
	doc  *document
	o    Options
	dirs map[string]string // contexts by name

	args     map[string]*string // values of the declared arguments
	contexts map[string]*contextDir
	failed   map[string]bool // contexts that cannot be opened
	used     map[string]bool // contexts that something is taken from
	others   []error         // problems of other files than the spec
	vertices map[digest.Digest]*graph.Vertex
	seenBy   map[digest.Digest]map[platform.Platform]bool
	reached  map[string]bool       // stages in use
	layers   map[*step]graph.Layer // files steps that are the same for all targets
	targets  int                   // how many there are
}

func newPlanner(ctx context.Context, r *reporter, doc *document, dir string, o Options) *planner {
	p := &planner{
		ctx: ctx, r: r, doc: doc, o: o,
		dirs: maps.Clone(o.Contexts), args: map[string]*string{},
		contexts: map[string]*contextDir{}, failed: map[string]bool{}, used: map[string]bool{mainContext: true},
		vertices: map[digest.Digest]*graph.Vertex{}, seenBy: map[digest.Digest]map[platform.Platform]bool{},
		reached: map[string]bool{}, layers: map[*step]graph.Layer{},
	}
	if p.dirs == nil {
		p.dirs = map[string]string{}
	}
	p.dirs[mainContext] = dir
	return p
}

func (p *planner) close() {
	for _, c := range p.contexts {
		c.root.Close()
	}
}

// build makes the targets. What is wrong is reported; the result is then not used.
func (p *planner) build(d *decoder) *graph.Build {
	p.context(mainContext, nil)
	p.bindArgs()
	p.checkNames(d)
	platforms := p.platforms()
	p.targets = len(platforms)
	b := &graph.Build{Contexts: map[string]string{}}
	for _, plat := range platforms {
		t := &targetPlan{planner: p, platform: plat, stages: map[string]*stageResult{}}
		t.vars = p.variables(plat, true)
		b.Targets = append(b.Targets, t.target())
		t.checking = true
		for _, s := range p.doc.stages {
			t.stage(s, nil)
		}
	}
	p.checkFroms()
	p.nameShared()
	for _, s := range p.doc.stages {
		if !p.reached[s.key.text] {
			p.r.warn(s.key, "stage %s is not used", s.key.text)
		}
	}
	b.IndexAnnotations = p.indexAnnotations()
	b.Allow = p.doc.allow
	for name := range p.used {
		b.Contexts[name] = p.dirs[name]
	}
	for _, name := range slices.Sorted(maps.Keys(p.o.Contexts)) {
		if !p.used[name] {
			p.r.warn(p.doc.root, "context %s is given but nothing is taken from it", name)
		}
	}
	b.Warnings = p.r.warningTexts()
	return b
}

// bindArgs gives the declared arguments their values.
func (p *planner) bindArgs() {
	var names []string
	for _, a := range p.doc.args {
		names = append(names, a.key.text)
		value := a.value
		if given, ok := p.o.Args[a.key.text]; ok {
			value = &given
		}
		switch {
		case value == nil:
			p.r.at(a.key, "--build-arg "+a.key.text+"=VALUE", "argument %s has no default and was not given", a.key.text)
		case !utf8.ValidString(*value) || strings.ContainsRune(*value, 0):
			p.r.at(a.key, "", "the value of argument %s is not text", a.key.text)
		case looksSecret(a.key.text) && *value != "":
			p.r.warn(a.key, "argument %s looks like a secret; arguments are visible in the environment of steps and in caches: use a secret mount", a.key.text)
		}
		p.args[a.key.text] = value
	}
	if p.doc.badArgs {
		return
	}
	at := p.doc.root
	if n := p.doc.root.value("args"); n != nil {
		at = n
	}
	for _, name := range slices.Sorted(maps.Keys(p.o.Args)) {
		if _, ok := p.args[name]; !ok {
			hint := didYouMean(name, names)
			if len(names) == 0 {
				hint = "declare it: args: {" + clean(name) + ": \"\"}"
			}
			p.r.at(at, hint, "--build-arg %s is not declared in args", name)
		}
	}
}

// checkNames reports variables that no platform has, once for each place.
func (p *planner) checkNames(d *decoder) {
	if p.doc.badArgs {
		return
	}
	known := slices.Clone(predefined)
	for _, a := range p.doc.args {
		known = append(known, a.key.text)
	}
	for _, t := range d.templates {
		for _, part := range t.parts {
			if part.name != "" && !slices.Contains(known, part.name) {
				hint := ""
				if best := nearest(part.name, known); best != "" {
					hint = "did you mean ${" + best + "}?"
				} else {
					hint = "declare it in args; the environment and the base image's variables are not known here"
				}
				p.r.at(part.at, hint, "undefined variable %s", part.name)
			}
		}
	}
}

// platforms returns what to build: the command line's, the spec's or the machine's.
func (p *planner) platforms() []platform.Platform {
	var declared []platform.Platform
	for _, t := range p.doc.platforms {
		plat, err := platform.Parse(t.s)
		switch {
		case err != nil:
			p.r.add(t.n.line, t.n.col, err, "", "%v", err)
		case slices.Contains(declared, plat):
			p.r.warn(t.n, "platform %s is here twice", plat)
		default:
			declared = append(declared, plat)
		}
	}
	if n := p.doc.hasPlatform; n != nil && len(n.values) == 0 && (n.kind == kindList || n.kind == kindNull) {
		p.r.at(n, "leave the key out for the machine's own", "platforms is empty")
	}
	switch {
	case len(p.o.Platforms) > 0:
		return p.o.Platforms
	case p.doc.hasPlatform != nil:
		return declared
	}
	if p.o.Machine.IsZero() {
		p.r.at(p.doc.root, "add platforms", "platforms is missing and this machine's is not known")
	}
	return []platform.Platform{p.o.Machine}
}

// variables are what templates and steps see for one target; a stage that is the same for all targets sees none of TARGET*.
func (p *planner) variables(target platform.Platform, perTarget bool) variables {
	v := variables{}
	set := func(name, value string) { v[name] = &value }
	if perTarget {
		set("TARGETPLATFORM", target.String())
		set("TARGETOS", target.OS)
		set("TARGETARCH", target.Arch)
		set("TARGETVARIANT", target.Variant)
		sp := target.Spellings()
		for name, value := range map[string]string{
			"DEB_ARCH": sp.Deb, "UNAME_ARCH": sp.Uname, "GNU_TRIPLET": sp.GNUTriplet,
			"RUST_TARGET": sp.Rust, "APK_ARCH": sp.APK, "RPM_ARCH": sp.RPM,
		} {
			v[name] = nil
			if value != "" {
				set(name, value)
			}
		}
	}
	m := p.o.Machine
	set("BUILDPLATFORM", m.String())
	set("BUILDOS", m.OS)
	set("BUILDARCH", m.Arch)
	set("BUILDVARIANT", m.Variant)
	for name, value := range p.args {
		if value != nil { // else reported where it is declared
			v[name] = value
		}
	}
	return v
}

// intern returns the one vertex of v's digest, and notes that plat needs it.
func (p *planner) intern(v *graph.Vertex, plat platform.Platform) *graph.Vertex {
	d := v.Digest()
	if have := p.vertices[d]; have != nil {
		v = have
	} else {
		p.vertices[d], p.seenBy[d] = v, map[platform.Platform]bool{}
	}
	p.seenBy[d][plat] = true
	return v
}

// nameShared says of each vertex for whom it is: the one platform that needs it, or nobody in particular.
func (p *planner) nameShared() {
	for d, v := range p.vertices {
		if len(p.seenBy[d]) == 1 {
			for plat := range p.seenBy[d] {
				v.Meta.For = plat.String()
			}
		}
	}
}

// context returns a context by name; nil when it cannot be used, which is reported.
func (p *planner) context(name string, at *node) *contextDir {
	if c := p.contexts[name]; c != nil {
		return c
	}
	if p.failed[name] {
		return nil
	}
	dir, ok := p.dirs[name]
	if !ok {
		names := slices.Sorted(maps.Keys(p.dirs))
		hint := "--build-context " + clean(name) + "=DIR"
		if best := nearest(name, names); best != "" {
			hint = didYouMean(name, names)
		}
		p.r.at(at, hint, "there is no context %q", name)
		return nil
	}
	c, err := openContext(name, dir)
	if err != nil {
		p.failed[name] = true
		p.others = append(p.others, err)
		return nil
	}
	p.contexts[name] = c
	return c
}

// indexAnnotations are those of the whole image: the same for all platforms.
func (p *planner) indexAnnotations() map[string]string {
	vars := p.variables(platform.Platform{}, false)
	out := map[string]string{}
	for _, a := range p.doc.annotations.index {
		if v, ok := p.same(a.value, vars, "an annotation of the index"); ok {
			out[a.key.text] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// same expands a value that is the same for all targets.
func (p *planner) same(t *template, vars variables, what string) (string, bool) {
	for _, part := range t.parts {
		if _, ok := vars[part.name]; part.name != "" && !ok && slices.Contains(predefined, part.name) {
			p.r.at(part.at, "", "%s differs between targets, %s is the same for all", part.name, what)
			return "", false
		}
	}
	return t.eval(p.r, vars)
}

// checkFroms checks the references of a from that no target of this build needs.
func (p *planner) checkFroms() {
	t := &targetPlan{planner: p, checking: true, stages: map[string]*stageResult{}}
	c := &chain{targetPlan: t}
	check := func(f *from) {
		if f == nil {
			return
		}
		for _, fc := range f.cases {
			if len(fc.ref.parts) == 1 && fc.ref.parts[0].name == "" && fc.ref.parts[0].literal != "scratch" {
				c.checkReference(fc.ref.parts[0].literal, fc.ref.n)
			}
		}
	}
	check(p.doc.from)
	for _, s := range p.doc.stages {
		check(s.from)
	}
}

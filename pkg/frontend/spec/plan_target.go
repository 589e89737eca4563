package spec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// targetPlan makes the chain of one target and the stages it uses.
type targetPlan struct {
	*planner
	platform platform.Platform
	vars     variables
	stages   map[string]*stageResult
	making   []string // stages that are being made, outermost first
	checking bool     // what is made now is not used, only checked
}

// stageResult is a stage as this target sees it.
type stageResult struct {
	root *graph.Vertex
	ok   bool // false: reported
	busy bool // being made: whoever asks for it now is part of a cycle
}

// chain is one run of steps: the target's own, or a stage's.
type chain struct {
	*targetPlan
	name     string // "" for the target's own
	platform platform.Platform
	vars     variables
	shared   bool // no TARGET* variables
	step     int
	steps    int
}

// created is the time of everything that the spec makes.
func (p *planner) created() int64 {
	if p.o.Epoch != nil {
		return *p.o.Epoch
	}
	return 0
}

// target makes one image.
func (t *targetPlan) target() graph.Target {
	out := graph.Target{Platform: t.platform, Created: t.created()}
	c := &chain{targetPlan: t, platform: t.platform, vars: t.vars}
	if t.doc.from != nil {
		if base, ok := c.base(t.doc.from); ok {
			out.Root, _ = c.run(base, t.doc.accounts, t.doc.steps)
		} else {
			c.run(nil, t.doc.accounts, t.doc.steps)
		}
	}
	out.Config = t.config()
	for _, a := range t.doc.annotations.manifest {
		if v, ok := a.value.eval(t.r, t.vars); ok {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[a.key.text] = v
		}
	}
	return out
}

// stage makes a stage, once for this target. at is where it is named, nil when it is only checked.
func (t *targetPlan) stage(s *stage, at *node) *stageResult {
	if !t.checking {
		t.reached[s.key.text] = true
	}
	if have := t.stages[s.key.text]; have != nil {
		if have.busy && at != nil {
			path := append(slices.Clone(t.making[slices.Index(t.making, s.key.text):]), s.key.text)
			t.r.at(at, "", "stage %s needs itself: %s", s.key.text, strings.Join(path, " -> "))
			return &stageResult{}
		}
		return have
	}
	t.making = append(t.making, s.key.text)
	defer func() { t.making = t.making[:len(t.making)-1] }()
	res := &stageResult{busy: true}
	t.stages[s.key.text] = res
	c := &chain{targetPlan: t, name: s.key.text, platform: t.platform, vars: t.vars, shared: !s.perTarget}
	switch s.platform.s {
	case "", "target":
	case "build":
		c.platform = t.o.Machine
	default:
		c.platform, _ = platform.Parse(s.platform.s) // checked by the decoder
	}
	if c.shared {
		c.vars = t.variables(platform.Platform{}, false)
	}
	if !s.bad {
		base, ok := c.base(s.from)
		root, good := c.run(base, s.accounts, s.steps)
		res.root, res.ok = root, ok && good
	}
	res.busy = false
	return res
}

// expand evaluates a template for this chain.
func (c *chain) expand(t *template) (string, bool) {
	if t == nil {
		return "", false
	}
	if c.shared {
		return c.same(t, c.vars, "stage "+c.name)
	}
	return t.eval(c.r, c.vars)
}

// base resolves a from: nil and true for scratch.
func (c *chain) base(f *from) (*graph.Vertex, bool) {
	t := f.ref
	if t == nil {
		fc, ok := c.pick(f)
		if !ok {
			return nil, false
		}
		t = fc.ref
	}
	s, ok := c.expand(t)
	if !ok {
		return nil, false
	}
	if s == "scratch" {
		return nil, true
	}
	return c.image(s, t.n)
}

// pick chooses the case of a from by platform: the most specific pattern, else default.
func (c *chain) pick(f *from) (fromCase, bool) {
	var best, other *fromCase
	for i := range f.cases {
		fc := &f.cases[i]
		switch {
		case fc.other:
			other = fc
		case !fc.patterns.matches(c.platform):
		case best != nil && best.patterns.weight == fc.patterns.weight:
			c.r.at(fc.key, "make one of them more specific", "%s and %s both fit %s", best.key.text, fc.key.text, c.platform)
			return fromCase{}, false
		case best == nil || best.patterns.weight < fc.patterns.weight:
			best = fc
		}
	}
	if best == nil {
		best = other
	}
	if best == nil {
		c.r.at(f.n, `add it, or "default"`, "from has nothing for %s", c.platform)
		return fromCase{}, false
	}
	return *best, true
}

// image resolves a stage or an image reference.
func (c *chain) image(s string, at *node) (*graph.Vertex, bool) {
	name, isStage := strings.CutPrefix(s, "stage:")
	names := c.stageNames()
	for _, st := range c.doc.stages {
		if st.key.text == name { // a bare name is a stage when there is one
			res := c.stage(st, at)
			return res.root, res.ok
		}
	}
	if isStage {
		c.r.at(at, didYouMean(name, names), "there is no stage %q", name)
		return nil, false
	}
	r, ok := c.reference(s, at, names)
	if !ok {
		return nil, false
	}
	meta := graph.Meta{Name: "FROM " + r.Familiar(), Source: c.source(at)}
	if r.Path != "" && !filepath.IsAbs(r.Path) { // a spec's files are its context's
		r.Path = filepath.Join(c.dirs[mainContext], r.Path)
	}
	return c.intern(graph.New(graph.Image{Ref: r.String()}, c.platform, meta), c.targetPlan.platform), true
}

// reference parses the name of an image, reporting it at at.
func (c *chain) reference(s string, at *node, stages []string) (ref.Ref, bool) {
	r, err := ref.Parse(s)
	if err != nil {
		hint := ""
		if nearest(s, stages) != "" {
			hint = didYouMean(s, stages)
		}
		c.r.add(at.line, at.col, err, hint, "%v", err)
		return r, false
	}
	return r, true
}

// checkReference checks a stage's name or a reference without making anything of it.
func (c *chain) checkReference(s string, at *node) {
	names := c.stageNames()
	name, isStage := strings.CutPrefix(s, "stage:")
	switch {
	case slices.Contains(names, name):
	case isStage:
		c.r.at(at, didYouMean(name, names), "there is no stage %q", name)
	default:
		c.reference(s, at, names)
	}
}

func (p *planner) stageNames() []string {
	var names []string
	for _, s := range p.doc.stages {
		names = append(names, s.key.text)
	}
	return names
}

// source is the file and line of a step.
func (p *planner) source(n *node) string { return fmt.Sprintf("%s:%d", p.r.file, n.line) }

// run lays steps over base. ok is false when something was reported on the way.
func (c *chain) run(base *graph.Vertex, acc *accounts, steps []*step) (root *graph.Vertex, ok bool) {
	before := c.r.count
	var todo []*step
	if acc != nil {
		todo = append(todo, &step{n: acc.n, accounts: acc})
	}
	for _, s := range steps {
		if c.applies(s.when) {
			todo = append(todo, s)
		}
	}
	c.steps = len(todo)
	root = base
	for i, s := range todo {
		if c.ctx.Err() != nil {
			return nil, false
		}
		c.step = i + 1
		if v := c.vertex(root, s); v != nil {
			root = v
		}
	}
	return root, c.r.count == before && len(c.others) == 0
}

// applies decides a when for this chain. Undeclared arguments are reported.
func (c *chain) applies(w *when) bool {
	if w == nil {
		return true
	}
	if c.shared && len(w.platforms) > 0 {
		c.r.at(w.platforms[0].n, "", "when.platforms differs between targets, stage %s is the same for all", c.name)
		return false
	}
	yes := matchesAny(w.platforms, c.targetPlan.platform)
	for _, a := range w.args {
		v, known := c.args[a.key.text]
		if !known {
			if !c.doc.badArgs {
				var names []string
				for _, d := range c.doc.args {
					names = append(names, d.key.text)
				}
				hint := didYouMean(a.key.text, names)
				if isPredefined(a.key.text) {
					hint = "use when.platforms"
				}
				c.r.at(a.key, hint, "argument %s is not declared in args", a.key.text)
			}
			yes = false
			continue
		}
		yes = yes && v != nil && *v == a.value
	}
	return yes
}

// vertex makes the vertex of one step; nil when it was reported.
func (c *chain) vertex(base *graph.Vertex, s *step) *graph.Vertex {
	switch {
	case s.files != nil:
		return c.files(base, s)
	case s.archive != nil:
		return c.archive(base, s)
	case s.remove != nil:
		return c.remove(base, s)
	case s.copy != nil:
		return c.copy(base, s)
	case s.accounts != nil:
		op := graph.Accounts{Groups: s.accounts.groups, Users: s.accounts.users, Time: c.created(), At: c.r.where(s.n)}
		return c.make(op, platform.Platform{}, s, historyAccounts(op), base)
	case s.run != nil:
		return c.exec(base, s)
	}
	return nil
}

// make makes a vertex whose history is derived from its operation alone, so that equal vertices have equal histories.
func (c *chain) make(op graph.Op, p platform.Platform, s *step, history string, inputs ...*graph.Vertex) *graph.Vertex {
	name := shortName(history)
	if s.name.set() {
		name = clean(s.name.s)
	}
	if c.name != "" {
		name = c.name + ": " + name
	}
	meta := graph.Meta{Name: name, Source: c.source(s.n), History: history, Step: c.step, Steps: c.steps}
	return c.intern(graph.New(op, p, meta, inputs...), c.targetPlan.platform)
}

package verify

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Input is one platform's image.
type Input struct {
	Platform platform.Platform
	Digest   digest.Digest // of the manifest; may be ""
	Config   ocispec.Image
	Layers   []Layer // bottom first
	Unread   []int   // indexes of layers that are not to be had
	Allow    []Allow
}

// Judge looks for what is wrong with an image. It reads nothing.
func Judge(in Input) ([]Finding, error) {
	t, err := newTree(in.Layers)
	if err != nil {
		return nil, err
	}
	j := &judgement{
		in: in, t: t, steps: steps(in.Config.History, len(in.Layers)), linker: linker{t: t},
		started: map[*layer.Entry]bool{}, checked: map[string]bool{}, groups: map[group]*Finding{}, right: map[int]bool{},
	}
	if dirs := j.env("LD_LIBRARY_PATH"); dirs != "" {
		j.linker.env = strings.FieldsFunc(dirs, func(r rune) bool { return r == ':' || r == ';' })
	}
	for _, i := range in.Unread {
		j.add(RuleUnread, RuleUnread.Level, i, "", "a layer is not to be had here: what is in it was not judged")
	}
	j.entrypoint()
	j.commands()
	j.others()
	return j.finish(), nil
}

// judgement is the work of one Judge.
type judgement struct {
	in      Input
	t       *tree
	steps   []string
	linker  linker
	started map[*layer.Entry]bool // judged as something that is started, or loaded by it
	checked map[string]bool       // scripts and programs on the way from the entrypoint
	found   []Finding
	groups  map[group]*Finding
	right   map[int]bool // layers with a program for the platform, of those that are started
}

// group is what one finding about many files is about.
type group struct {
	rule  string
	level Level
	layer int
	what  string
}

// windows reports whether paths and formats are Windows's.
func (j *judgement) windows() bool { return j.in.Platform.OS == "windows" }

// add reports one thing. at is the layer's index, -1 for none.
func (j *judgement) add(r Rule, level Level, at int, name, text string) {
	f := Finding{Rule: r, Level: level, Platform: j.in.Platform.String(), Digest: j.in.Digest, Path: name, Text: text, Layer: at + 1}
	if name != "" {
		f.Count = 1
	}
	if at >= 0 && at < len(j.steps) {
		f.Step = j.steps[at]
	}
	j.found = append(j.found, f)
}

// about reports something about a file, unless an exception covers it.
func (j *judgement) about(r Rule, level Level, f file, text string) {
	if allows(j.in.Allow, f.Name, f.exe()) {
		return
	}
	j.add(r, level, f.Layer, f.abs(), f.abs()+" "+text)
}

// aboutMany counts a file under a finding about many.
func (j *judgement) aboutMany(r Rule, level Level, f file, what string) {
	if allows(j.in.Allow, f.Name, f.exe()) {
		return
	}
	k := group{r.ID, level, f.Layer, what}
	g := j.groups[k]
	if g == nil {
		g = &Finding{Rule: r, Level: level, Platform: j.in.Platform.String(), Digest: j.in.Digest, Layer: f.Layer + 1}
		if f.Layer < len(j.steps) {
			g.Step = j.steps[f.Layer]
		}
		j.groups[k] = g
	}
	if g.Count++; len(g.Paths) < maxPaths {
		g.Paths = append(g.Paths, f.abs())
	}
}

// env is a variable of the image's config.
func (j *judgement) env(name string) string {
	for _, e := range slices.Backward(j.in.Config.Config.Env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// path is where commands without a slash are looked for; runtimes have this one when the image has none.
func (j *judgement) path() []string {
	p := j.env("PATH")
	if p == "" {
		p = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return strings.Split(p, ":")
}

// commands judges the programs in the directories of PATH.
func (j *judgement) commands() {
	if j.windows() {
		return
	}
	seen := map[string]bool{}
	for _, dir := range j.path() {
		d, ok := j.t.get(strings.Trim(dir, "/"))
		if dir == "" || !ok || !d.isDir() || seen[d.Name] {
			continue
		}
		seen[d.Name] = true
		for _, name := range j.t.view.Names(d.Name) {
			f, ok := j.t.get(path.Join(d.Name, name))
			if !ok || !f.isRegular() || !f.executable() || j.started[f.Entry] {
				continue
			}
			j.command(f)
		}
	}
}

// command judges one of them. What it lacks to start is an error as well, unless it is a script: packages bring
// scripts for interpreters that they only recommend.
func (j *judgement) command(f file) {
	e := f.exe()
	if e == nil {
		return
	}
	j.started[f.Entry] = true
	switch {
	case e.Format == exe.Script:
		if text := j.interpreter(f); text != "" {
			j.about(RuleInterpreter, Warning, f, text)
		}
		return
	case e.Kind == exe.Object || e.Kind == exe.Core:
		j.started[f.Entry] = false
		return
	case e.Format == exe.PE && (strings.HasSuffix(f.Name, ".exe") || strings.HasSuffix(f.Name, ".dll")): // mono, wine
		j.started[f.Entry] = false
		return
	}
	if j.machine(f, e) {
		j.links(f, Error)
	}
}

// machine judges a program that is started, by its machine.
func (j *judgement) machine(f file, e *exe.File) (ok bool) {
	switch v, why := judge(e, j.in.Platform); v {
	case wrong:
		j.about(RuleMachine, Error, f, why)
	case tooNew:
		j.about(RuleVariant, Error, f, why+", which "+j.in.Platform.String()+" does not promise")
	case compatible:
		j.about(RuleCompatible, Warning, f, why)
		return true
	default:
		j.right[f.Layer] = true
		return true
	}
	return false
}

// others judges what is neither started nor in PATH.
func (j *judgement) others() {
	_ = j.t.view.Each(func(o layer.Origin) error {
		if o.Entry.Size == 0 || j.started[o.Entry] {
			return nil
		}
		f := j.t.file(o)
		if !f.isRegular() {
			return nil
		}
		e := f.exe()
		if e == nil || e.Format == exe.Script {
			return nil
		}
		j.started[o.Entry] = true // hard links are one file
		v, _ := judge(e, j.in.Platform)
		loadable := e.Kind == exe.Library && (e.Format == exe.ELF || j.windows())
		runs := loadable || e.Kind == exe.Program && f.executable()
		if j.windows() {
			runs = e.Runnable()
		}
		switch {
		case v == wrong && runs:
			j.aboutMany(RuleForeign, Warning, f, e.String())
		case v == wrong:
			j.aboutMany(RuleObject, Note, f, e.String())
		case v == tooNew && runs && !strings.Contains(f.Name, "/glibc-hwcaps/"):
			_, why := judge(e, j.in.Platform)
			j.aboutMany(RuleVariant, Warning, f, why)
		}
		return nil
	})
}

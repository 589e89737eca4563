package spec

import (
	"errors"
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var documentObject = object[document]{"the spec", []field[document]{
	{"version", func(d *decoder, v *document, n *node) { v.version = n }},
	{"platforms", func(d *decoder, v *document, n *node) { v.hasPlatform, v.platforms = n, d.strings(n, "platforms") }},
	{"args", (*decoder).args},
	{"from", func(d *decoder, v *document, n *node) { v.from = d.from(n) }},
	{"accounts", func(d *decoder, v *document, n *node) { v.accounts = d.accounts(n) }},
	{"stages", (*decoder).stages},
	{"steps", func(d *decoder, v *document, n *node) { v.steps = d.steps(n) }},
	{"config", func(d *decoder, v *document, n *node) {
		if n.kind != kindNull {
			configObject.decode(d, n, &v.config)
		}
	}},
	{"annotations", func(d *decoder, v *document, n *node) {
		if n.kind != kindNull {
			annotationsObject.decode(d, n, &v.annotations)
		}
	}},
	{"verify", func(d *decoder, v *document, n *node) {
		if n.kind != kindNull {
			verifyObject.decode(d, n, v)
		}
	}},
}}

var verifyObject = object[document]{"verify", []field[document]{
	{"allow", func(d *decoder, v *document, n *node) {
		d.pairs(n, "verify.allow", func(k, val *node) {
			t := d.scalar(val, "the platform of "+k.text)
			if !t.set() {
				return
			}
			if problem := checkAllow(k.text, t.s); problem != nil {
				d.r.at(k, `write PATTERN: OS/ARCH or PATTERN: any`, "the exception %q: %v", clean(k.text), problem)
				return
			}
			v.allow = append(v.allow, graph.Allow{Path: k.text, Platform: t.s})
		})
	}},
}}

// checkAllow reports a pattern of paths or of platforms that is none.
func checkAllow(pattern, platforms string) error {
	if strings.Trim(pattern, "/") == "" {
		return errors.New("it names no file")
	}
	for c := range strings.SplitSeq(pattern, "/") {
		if _, err := path.Match(c, ""); err != nil {
			return err
		}
	}
	if platforms == "any" {
		return nil
	}
	_, err := platform.Match(platforms, platform.Platform{OS: "linux", Arch: "amd64"})
	return err
}

var stageObject = object[stage]{"a stage", []field[stage]{
	{"from", func(d *decoder, v *stage, n *node) { v.from = d.from(n) }},
	{"platform", func(d *decoder, v *stage, n *node) { v.platform = d.stagePlatform(n) }},
	{"per_target", func(d *decoder, v *stage, n *node) { v.perTarget = d.boolean(n, "per_target") }},
	{"accounts", func(d *decoder, v *stage, n *node) { v.accounts = d.accounts(n) }},
	{"steps", func(d *decoder, v *stage, n *node) { v.steps = d.steps(n) }},
}}

var annotationsObject = object[annotations]{"annotations", []field[annotations]{
	{"index", func(d *decoder, v *annotations, n *node) { v.index = d.env(n, "annotations.index", anyName) }},
	{"manifest", func(d *decoder, v *annotations, n *node) { v.manifest = d.env(n, "annotations.manifest", anyName) }},
}}

// decodeDocument reads a spec; nil when it is not YAML or not a mapping. What is wrong is reported, and left out.
func decodeDocument(r *reporter, text []byte) (*document, *decoder) {
	root := parse(r, text)
	if root == nil {
		return nil, nil
	}
	d := &decoder{r: r}
	doc := &document{root: root}
	complete := documentObject.decode(d, root, doc)
	if root.kind != kindMap {
		return nil, nil
	}
	switch {
	case doc.version == nil && complete:
		d.r.at(root, `begin with "version: 1"`, "version is missing")
	case doc.version == nil:
	case doc.version.kind != kindNumber || doc.version.text != "1":
		d.r.at(doc.version, "write version: 1", "version %q of the spec is not known", clean(doc.version.text))
	}
	if complete && root.value("from") == nil {
		d.r.at(root, `"from: scratch" begins with nothing`, "from is missing")
	}
	return doc, d
}

// predefined are the variables that every spec has, in the order of docs/spec.md.
var predefined = []string{
	"TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT",
	"BUILDPLATFORM", "BUILDOS", "BUILDARCH", "BUILDVARIANT",
	"DEB_ARCH", "UNAME_ARCH", "GNU_TRIPLET", "RUST_TARGET", "APK_ARCH", "RPM_ARCH",
}

func isPredefined(name string) bool {
	for _, p := range predefined {
		if p == name {
			return true
		}
	}
	return false
}

func (d *decoder) args(v *document, n *node) {
	before := d.mistakes()
	d.pairs(n, "args", func(k, val *node) {
		switch {
		case !nameText().MatchString(k.text):
			d.r.at(k, "letters, digits and _, no digit first", "%q is not a name of an argument", k.text)
		case isPredefined(k.text) || k.text == "SOURCE_DATE_EPOCH":
			d.r.at(k, "remove it: it is always there", "argument %s is predefined", k.text)
		case val.kind == kindNull:
			v.args = append(v.args, arg{key: k})
		default:
			if t := d.scalar(val, "the default of "+k.text); t.set() {
				v.args = append(v.args, arg{key: k, value: &t.s})
			}
		}
	})
	v.badArgs = d.mistakes() > before
}

// looksSecret guesses from a name whether its value should not be in an image.
func looksSecret(name string) bool {
	for _, word := range strings.Split(strings.ToUpper(name), "_") {
		switch word {
		case "PASSWORD", "PASSWD", "TOKEN", "SECRET", "APIKEY", "CREDENTIAL", "CREDENTIALS":
			return true
		}
	}
	return false
}

func (d *decoder) from(n *node) *from {
	out := &from{n: n}
	if n.kind != kindMap {
		if n.kind == kindList || n.kind == kindNull {
			d.r.at(n, `"from: scratch" begins with nothing`, "from must be a reference or a mapping by platform, this is %s", n.kind)
			return nil
		}
		if out.ref = d.template(n, "from"); out.ref == nil {
			return nil
		}
		return out
	}
	before := d.mistakes()
	if len(n.keys) == 0 {
		d.r.at(n, "", "from is an empty mapping")
	}
	for i, k := range n.keys {
		c := fromCase{key: k, ref: d.template(n.values[i], "from for "+k.text)}
		if k.text == "default" {
			c.other = true
		} else {
			c.patterns = d.pattern(text{k.text, k}, false)
		}
		out.cases = append(out.cases, c)
	}
	if d.mistakes() > before {
		return nil
	}
	return out
}

func (d *decoder) stages(v *document, n *node) {
	d.pairs(n, "stages", func(k, val *node) {
		s := &stage{key: k, perTarget: true}
		before := d.mistakes()
		if !stageName(k.text) {
			d.r.at(k, "lower-case letters, digits, - and _", "%q is not a name of a stage", k.text)
		}
		if stageObject.decode(d, val, s) {
			if val.value("from") == nil {
				d.r.at(k, "", "stage %s has no from", k.text)
			}
			if !s.perTarget && (s.platform.s == "" || s.platform.s == "target") {
				d.r.at(val.value("per_target"), `add "platform: build"`, "a stage that runs on the target's platform is made for each target")
			}
		}
		s.bad = s.from == nil || d.mistakes() > before && len(s.steps) == 0
		v.stages = append(v.stages, s)
	})
}

func stageName(s string) bool {
	if s == "" || s == "scratch" || len(s) > 64 {
		return false
	}
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', i > 0 && (c == '-' || c == '_'):
		default:
			return false
		}
	}
	return true
}

func (d *decoder) stagePlatform(n *node) text {
	t := d.str(n, "platform")
	if !t.set() || t.s == "build" || t.s == "target" {
		return t
	}
	if _, err := platform.Parse(t.s); err != nil || !strings.Contains(t.s, "/") {
		d.r.add(n.line, n.col, err, "build, target, or os/arch as in linux/amd64", "%q is not a platform of a stage", t.s)
		return text{}
	}
	return t
}

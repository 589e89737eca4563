package index

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelError   Level = "error"   // somebody gets the wrong image, or none
	LevelWarning Level = "warning" // what somebody gets depends on the program
)

// Rule is something that is looked for in an index.
type Rule struct {
	ID    string
	Level Level
	Text  string // what is wrong, for whoever reads a list of rules
}

// The rules that need only the index.
var (
	RuleDuplicate   = Rule{"duplicate-platform", LevelError, "Two entries stand for one platform: one of them is never taken."}
	RuleOrder       = Rule{"order-dependent", LevelWarning, "Programs that ask for an architecture without a variant take the first entry, and that is not the one that runs everywhere."}
	RuleVariant     = Rule{"missing-variant", LevelWarning, "An entry for arm does not say its variant: some programs take it for v7, others for any."}
	RuleNoPlatform  = Rule{"missing-platform", LevelError, "An entry does not say its platform: programs take it for linux/amd64, for any, or for none."}
	RuleUnknown     = Rule{"unknown-first", LevelWarning, "An attestation is the first entry: programs that take the first get no image."}
	RuleFallThrough = Rule{"fall-through", LevelWarning, "A machine gets an image of another architecture, because its own has none."}
	RuleUnreachable = Rule{"unreachable-variant", LevelWarning, "Some programs never take an entry, because they do not know its variant."}
	RuleOSVersion   = Rule{"missing-os-version", LevelError, "An entry for Windows does not say its os.version: containers run only on hosts of the right one."}
	RuleOrphan      = Rule{"orphan-attestation", LevelWarning, "An attestation describes an image that is not in the index."}
	RuleDisagree    = Rule{"runtimes-disagree", LevelWarning, "Programs on the same machine take different images."}
	RuleSpelling    = Rule{"odd-platform", LevelWarning, "A platform is not written as programs that compare names expect it."}
)

// DocumentRules lists the rules that Lint looks for.
func DocumentRules() []Rule {
	return []Rule{RuleDuplicate, RuleOrder, RuleVariant, RuleNoPlatform, RuleUnknown, RuleFallThrough, RuleUnreachable, RuleOSVersion, RuleOrphan, RuleDisagree, RuleSpelling}
}

// Finding is one place where a rule is broken.
type Finding struct {
	Rule   Rule
	Digest digest.Digest // of the entry; "" when it is the index
	Text   string
}

// Lint looks for what makes an index mean different things to different programs, or the wrong thing to one. Findings are in the order of the rules.
func Lint(manifests []ocispec.Descriptor) []Finding {
	l := linter{manifests: manifests}
	for _, m := range manifests {
		i := image{desc: m, is: isImage(m)}
		if i.is && m.Platform != nil {
			var err error
			i.platform, err = platform.FromOCI(*m.Platform)
			i.known = err == nil
		}
		l.images = append(l.images, i)
	}
	for _, check := range []func(){l.duplicates, l.order, l.variants, l.platforms, l.unknownFirst, l.fallThrough, l.unreachable, l.windows, l.orphans, l.disagree, l.spelling} {
		check()
	}
	return l.found
}

type image struct {
	desc     ocispec.Descriptor
	is       bool // an image, not an attestation or artifact
	platform platform.Platform
	known    bool
}

type linter struct {
	manifests []ocispec.Descriptor
	images    []image
	found     []Finding
}

func (l *linter) add(r Rule, d digest.Digest, format string, a ...any) {
	l.found = append(l.found, Finding{r, d, fmt.Sprintf(format, a...)})
}

// each calls f for the images whose platform is known.
func (l *linter) each(f func(at int, p platform.Platform, m ocispec.Descriptor)) {
	for i, img := range l.images {
		if img.is && img.known {
			f(i, img.platform, img.desc)
		}
	}
}

func (l *linter) has(fits func(platform.Platform) bool) bool {
	found := false
	l.each(func(_ int, p platform.Platform, _ ocispec.Descriptor) { found = found || fits(p) })
	return found
}

func (l *linter) duplicates() {
	first := map[platform.Platform]ocispec.Descriptor{}
	l.each(func(_ int, p platform.Platform, m ocispec.Descriptor) {
		if f, ok := first[p]; ok {
			l.add(RuleDuplicate, m.Digest, "%s is %s, which programs take, and %s", p, f.Digest, m.Digest)
			return
		}
		first[p] = m
	})
}

// order: of several variants of an architecture the first must be the one that runs on all of its machines.
func (l *linter) order() {
	type family struct{ os, arch string }
	var families []family
	all := map[family][]platform.Platform{}
	l.each(func(_ int, p platform.Platform, _ ocispec.Descriptor) {
		if p.OS == "windows" {
			return
		}
		f := family{p.OS, p.Arch}
		if all[f] == nil {
			families = append(families, f)
		}
		all[f] = append(all[f], p)
	})
	for _, f := range families {
		ps := all[f]
		for _, p := range ps[1:] {
			// The first runs on p's machines, or else it is chosen there in vain.
			if _, ok := platform.SelectArch(p, ps[:1]); ok || p == ps[0] {
				continue
			}
			l.add(RuleOrder, "", "%s/%s is %s first, which does not run where %s does: put %s before it", f.os, f.arch, ps[0], p, p)
			break
		}
	}
}

func (l *linter) variants() {
	l.each(func(_ int, p platform.Platform, m ocispec.Descriptor) {
		if p.Arch == "arm" && m.Platform.Variant == "" {
			l.add(RuleVariant, m.Digest, "%s/arm without a variant: containerd and docker take it for v7, podman for any", p.OS)
		}
	})
}

func (l *linter) platforms() {
	for _, i := range l.images {
		if !i.is || i.known {
			continue
		}
		if i.desc.Platform == nil {
			l.add(RuleNoPlatform, i.desc.Digest, "%s has no platform: crane takes it for linux/amd64, the others when nothing else fits", i.desc.Digest)
		} else {
			l.add(RuleNoPlatform, i.desc.Digest, "%s is for %.64q/%.64q, which is no platform", i.desc.Digest, i.desc.Platform.OS, i.desc.Platform.Architecture)
		}
	}
}

func (l *linter) unknownFirst() {
	if len(l.manifests) > 1 && IsAttestation(l.manifests[0]) {
		l.add(RuleUnknown, l.manifests[0].Digest, "the first entry, %s, is an attestation (unknown/unknown): put images before it", l.manifests[0].Digest)
	}
}

// fallThrough: a 64-bit machine silently gets a 32-bit image.
func (l *linter) fallThrough() {
	for _, f := range []struct{ host, gets string }{{"arm64", "arm"}, {"amd64", "386"}} {
		host := platform.Platform{OS: "linux", Arch: f.host}
		if l.has(func(p platform.Platform) bool { return p.OS == "linux" && p.Arch == f.host }) {
			continue
		}
		c := Pick(Containerd, host, l.manifests)
		if c.At >= 0 && l.images[c.At].known && l.images[c.At].platform.Arch == f.gets {
			l.add(RuleFallThrough, l.manifests[c.At].Digest, "%s gets %s from docker and containerd without a word: add %[1]s", host, l.images[c.At].platform)
		}
	}
}

// unreachable: podman compares variants by name, and knows only those of arm and arm64.
func (l *linter) unreachable() {
	l.each(func(_ int, p platform.Platform, m ocispec.Descriptor) {
		if p.Variant == "" || p.OS != "linux" {
			return
		}
		if known := podmanVariants[p.Arch]; !slices.Contains(known, p.Variant) {
			plain := platform.Platform{OS: p.OS, Arch: p.Arch}
			if !l.has(func(o platform.Platform) bool { return o == plain }) {
				l.add(RuleUnreachable, m.Digest, "podman takes %s on no machine, and there is no plain %s", p, plain)
			}
		}
	})
}

func (l *linter) windows() {
	l.each(func(_ int, p platform.Platform, m ocispec.Descriptor) {
		if p.OS == "windows" && p.OSVersion == "" {
			l.add(RuleOSVersion, m.Digest, "%s has no os.version: annotate it with --os-version", p)
		}
	})
}

func (l *linter) orphans() {
	for _, m := range l.manifests {
		of := Attests(m)
		if !IsAttestation(m) || of == "" {
			continue
		}
		if !slices.ContainsFunc(l.manifests, func(o ocispec.Descriptor) bool { return o.Digest == of }) {
			l.add(RuleOrphan, m.Digest, "%s describes %s, which is not in the index", m.Digest, of)
		}
	}
}

// disagree compares what the programs take on every machine that the index is for. What other rules say is not said again.
func (l *linter) disagree() {
	var hosts []platform.Platform
	l.each(func(_ int, p platform.Platform, _ ocispec.Descriptor) {
		if p.OS == "linux" && !slices.Contains(hosts, p) {
			hosts = append(hosts, p)
		}
	})
	for _, host := range hosts {
		if host.Variant != "" && host.Arch == "amd64" {
			continue // podman has no such machine
		}
		takers := map[int][]string{}
		for _, rt := range Runtimes() {
			c := Pick(rt, host, l.manifests)
			takers[c.At] = append(takers[c.At], string(rt))
		}
		if len(takers) == 1 {
			continue
		}
		var parts []string
		for at := -1; at < len(l.manifests); at++ {
			if takers[at] == nil {
				continue
			}
			what := "none"
			if at >= 0 {
				what = l.manifests[at].Digest.String()
			}
			parts = append(parts, strings.Join(takers[at], " and ")+" "+verb(len(takers[at]))+" "+what)
		}
		l.add(RuleDisagree, "", "on %s, %s", host, strings.Join(parts, "; "))
	}
}

func verb(n int) string {
	if n == 1 {
		return "takes"
	}
	return "take"
}

// spelling: podman and crane compare names byte by byte.
func (l *linter) spelling() {
	l.each(func(_ int, p platform.Platform, m ocispec.Descriptor) {
		o := m.Platform
		if o.OS != p.OS || o.Architecture != p.Arch {
			l.add(RuleSpelling, m.Digest, "%.64q/%.64q is written %s/%s: podman and crane do not find it", o.OS, o.Architecture, p.OS, p.Arch)
			return
		}
		if v := o.Variant; v != "" && v != p.Variant && !(p.Arch == "arm64" && v == "v8") {
			want := p.Variant
			if want == "" {
				want = "left out"
			}
			l.add(RuleSpelling, m.Digest, "the variant %.64q of %s should be %s: podman and crane do not find it", v, p, want)
		}
	})
}

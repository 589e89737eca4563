package parity

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/packages"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// image notes everything about one platform.
func (c *comparison) image(at int, in verify.Input, r *Report) (Summary, error) {
	s := Summary{Platform: in.Platform.String(), Layers: len(in.Layers), Unread: len(in.Unread)}
	sources := make([]layer.Source, len(in.Layers))
	for i, l := range in.Layers {
		sources[i] = layer.Source{TOC: l.TOC}
		if l.TOC == nil {
			sources[i].TOC = &layer.TOC{}
			r.Problems = append(r.Problems, fmt.Sprintf("%s: layer %d could not be read", s.Platform, i+1))
		}
	}
	view, err := layer.NewView(sources)
	if err != nil {
		return s, err
	}
	names := newNames(in.Platform)
	seen := map[*layer.Entry]bool{}
	var installed []packages.Package
	err = view.Each(func(o layer.Origin) error {
		if o.Name == "." || o.Layer < 0 {
			return nil
		}
		e := o.Entry
		name := "/" + names.normal(o.Name)
		var f *facts.File
		if e.Type == tar.TypeReg {
			s.Files++
			if l := in.Layers[o.Layer].Facts; l != nil && e.Size > 0 {
				f, _ = l.Find(e.Offset)
			}
			if !seen[e] {
				s.Size += e.Size
				seen[e] = true
			}
		}
		if f != nil && f.Problem != "" {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: /%s: %s", s.Platform, o.Name, f.Problem))
		}
		if f != nil {
			installed = append(installed, f.Packages...)
		}
		c.file(at, name, e, f, names)
		return nil
	})
	if err != nil {
		return s, err
	}
	s.Packages = len(installed)
	for _, p := range installed {
		c.put(at, Packages, p.Name, rebuild().ReplaceAllString(p.Version, ""))
	}
	c.config(at, in, names)
	return s, nil
}

// rebuild is what Debian appends to the version of a package that was compiled again for one machine only.
var rebuild = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\+b[0-9]+$`) })

// file notes one file. Databases and caches that describe the machine's packages differ by nature: they are not compared by size.
func (c *comparison) file(at int, name string, e *layer.Entry, f *facts.File, names names) {
	kind := map[byte]string{
		tar.TypeReg: "file", tar.TypeDir: "directory", tar.TypeSymlink: "link to ", tar.TypeChar: "character device",
		tar.TypeBlock: "block device", tar.TypeFifo: "fifo",
	}[e.Type]
	if e.Type == tar.TypeSymlink {
		kind += names.normal(e.Link)
	}
	c.put(at, Files, name, kind)
	if e.Type != tar.TypeSymlink {
		mode := fmt.Sprintf("%04o %d:%d", e.Mode, e.UID, e.GID)
		if caps, ok := e.Xattrs["security.capability"]; ok {
			mode += " capabilities " + hex.EncodeToString([]byte(caps))
		}
		c.put(at, Modes, name, mode)
	}
	if e.Type != tar.TypeReg {
		return
	}
	x := (*exe.File)(nil)
	if f != nil {
		x = f.Exe
	}
	if x == nil || x.Format == exe.Script {
		if f == nil || f.Packages == nil {
			c.put(at, Sizes, name, fmt.Sprint(e.Size))
		}
		return
	}
	if x.Go != nil {
		c.goBuild(at, name, x.Go)
	}
}

// machineSettings are Go's settings that differ with the machine.
var machineSettings = map[string]bool{
	"GOARCH": true, "GOARM": true, "GOARM64": true, "GOAMD64": true, "GO386": true, "GOMIPS": true, "GOMIPS64": true, "GOPPC64": true,
	"GORISCV64": true, "GOWASM": true, "GOOS": true,
}

// goBuild notes what a Go program is made of.
func (c *comparison) goBuild(at int, name string, g *exe.GoBuild) {
	c.put(at, Go, name+" go", g.Version)
	c.put(at, Go, name+" main", g.Main)
	for _, d := range g.Deps {
		module, v, _ := strings.Cut(d, "@")
		c.put(at, Go, name+" "+module, v)
	}
	for _, k := range slices.Sorted(maps.Keys(g.Settings)) {
		if !machineSettings[k] {
			c.put(at, Go, name+" "+k, g.Settings[k])
		}
	}
}

// config notes what the image's config says about running it.
func (c *comparison) config(at int, in verify.Input, names names) {
	k := in.Config.Config
	put := func(name, value string) { c.put(at, Config, name, names.normal(value)) }
	put("entrypoint", strings.Join(k.Entrypoint, " "))
	put("cmd", strings.Join(k.Cmd, " "))
	put("user", k.User)
	put("workdir", k.WorkingDir)
	put("stop signal", k.StopSignal)
	put("ports", strings.Join(slices.Sorted(maps.Keys(k.ExposedPorts)), " "))
	put("volumes", strings.Join(slices.Sorted(maps.Keys(k.Volumes)), " "))
	for _, e := range k.Env {
		name, value, _ := strings.Cut(e, "=")
		put("env "+name, value)
	}
	for _, l := range slices.Sorted(maps.Keys(k.Labels)) {
		put("label "+l, k.Labels[l])
	}
}

// names replaces the machine's names in paths and texts by words that are the same for all.
type names struct{ r *strings.Replacer }

func newNames(p platform.Platform) names {
	s := p.Spellings()
	var pairs []string
	add := func(spelling, word string) {
		if spelling != "" {
			pairs = append(pairs, spelling, word)
		}
	}
	triplets := []string{s.GNUTriplet}
	loaders := map[string][]string{
		"amd64": {"ld-linux-x86-64.so.2", "ld-musl-x86_64"}, "arm64": {"ld-linux-aarch64.so.1", "ld-musl-aarch64"}, "386": {"ld-linux.so.2", "ld-musl-i386"},
		"arm": {"ld-linux-armhf.so.3", "ld-linux.so.3", "ld-musl-armhf", "ld-musl-arm"}, "riscv64": {"ld-linux-riscv64-lp64d.so.1", "ld-musl-riscv64"},
		"ppc64le": {"ld64.so.2", "ld-musl-powerpc64le"}, "s390x": {"ld64.so.1", "ld-musl-s390x"}, "mips64le": {"ld.so.1"}, "loong64": {"ld-linux-loongarch-lp64d.so.1"},
	}[p.Arch]
	for _, l := range loaders {
		add(l, "{loader}")
	}
	for _, t := range triplets {
		add(t, "{triplet}")
	}
	add("musl-"+s.APK, "musl-{arch}")
	for _, n := range []string{s.Uname, s.RPM, s.APK, s.GNUTriplet[:strings.IndexByte(s.GNUTriplet+"-", '-')], strings.ReplaceAll(s.Uname, "_", "-")} {
		add(n, "{arch}")
	}
	if len(s.Deb) > 3 { // "arm" and "386" are parts of too many words
		add(s.Deb, "{arch}")
	}
	if len(s.Go) > 3 {
		add(s.Go, "{arch}")
	}
	return names{strings.NewReplacer(pairs...)}
}

func (n names) normal(s string) string { return n.r.Replace(s) }

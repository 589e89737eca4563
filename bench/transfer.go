package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// W6: an index of six platforms, six layers each, 600 MB in all, is copied every way by manifestctl, crane and skopeo.
const (
	copyPlatforms = 6
	copyLayers    = 6
	copyBytes     = 600_000_000
)

// copier is one program that copies.
type copier struct {
	name string
	// command copies between REPO:TAG on registries and layouts ("oci:DIR"), in a home of its own.
	command func(b *bench, home, from, to string) *exec.Cmd
}

var copiers = []copier{
	{"manifestctl", func(b *bench, _, from, to string) *exec.Cmd {
		return exec.Command(b.bin, "--root", filepath.Join(b.dir, "store"), "copy", "--quiet", from, to)
	}},
	{"crane", func(b *bench, _, from, to string) *exec.Cmd {
		crane := filepath.Join(b.dir, "crane")
		if dir, ok := strings.CutPrefix(to, "oci:"); ok {
			return exec.Command(crane, "pull", "--format", "oci", from, strings.TrimSuffix(dir, ":1"))
		}
		if dir, ok := strings.CutPrefix(from, "oci:"); ok {
			return exec.Command(crane, "push", strings.TrimSuffix(dir, ":1"), to)
		}
		return exec.Command(crane, "copy", from, to)
	}},
	{"skopeo", func(_ *bench, home, from, to string) *exec.Cmd {
		transport := func(s string) string {
			if strings.HasPrefix(s, "oci:") {
				return s
			}
			return "docker://" + s
		}
		c := exec.Command("skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
			"--src-tls-verify=false", "--dest-tls-verify=false", transport(from), transport(to))
		// Without what an earlier run has learned about blobs: root's is at a fixed place, other users' in their home.
		c.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_DATA_HOME="+home)
		if os.Getuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		return c
	}},
}

// nobody is an ordinary user.
const nobody = 65534

// way is one way of copying.
type way struct {
	name, target string
	only         int // runs; 0: as many as asked for
	slow         bool
	with         []string // copiers; nil: all
	// ends gives what the run numbered n of a program copies from where to where; a and b are the registries, perhaps
	// behind a proxy. undo removes what it made.
	ends func(x *transfers, a, b, who string, n int) (from, to string, undo func() error)
}

func keep() error { return nil }

var ways = []way{
	{name: "registry to registry, 600 MB", target: "≤ 1.05× the best", ends: func(_ *transfers, a, b, who string, n int) (string, string, func() error) {
		return a + "/app:1", fmt.Sprintf("%s/%s/copy%d:1", b, who, n), keep
	}},
	{name: "across repositories of one registry", target: "≤ 1.05× the best", ends: func(_ *transfers, a, _, who string, n int) (string, string, func() error) {
		return a + "/app:1", fmt.Sprintf("%s/%s/mounted%d:1", a, who, n), keep
	}},
	{name: "registry to layout", target: "≤ 1.05× the best", ends: func(x *transfers, a, _, who string, n int) (string, string, func() error) {
		dir := filepath.Join(x.dir, "out", fmt.Sprintf("%s-%d", who, n))
		return a + "/app:1", "oci:" + dir + ":1", func() error { return os.RemoveAll(dir) }
	}},
	{name: "layout to registry", target: "≤ 1.05× the best", ends: func(x *transfers, _, b, who string, n int) (string, string, func() error) {
		return "oci:" + x.layout + ":1", fmt.Sprintf("%s/%s/pushed%d:1", b, who, n), keep
	}},
	{name: "one layer of 36 changed", target: "≤ 1.05× the best", ends: func(_ *transfers, a, b, who string, n int) (string, string, func() error) {
		return fmt.Sprintf("%s/app:next%d", a, n), fmt.Sprintf("%s/%s/app:1", b, who), keep
	}},
	{name: "registry to registry, 20 ms a request, 20 MB/s a connection", target: "≤ 0.5× crane", only: 5, slow: true, with: []string{"manifestctl", "crane"}, ends: func(_ *transfers, a, b, who string, n int) (string, string, func() error) {
		return a + "/app:1", fmt.Sprintf("%s/%s/slow%d:1", b, who, n), keep
	}},
}

// transfers is the place of W6.
type transfers struct {
	*bench
	dir    string
	layout string
	a, b   string // registries
}

// transfers is W6.
func (b *bench) transfers() (err error) {
	x := &transfers{bench: b, dir: filepath.Join(b.dir, "w6")}
	x.layout = filepath.Join(x.dir, "layout")
	if err := errors.Join(os.MkdirAll(filepath.Join(x.dir, "out"), 0o755), os.Chmod(b.dir, 0o755), os.Chmod(filepath.Join(x.dir, "out"), 0o777)); err != nil {
		return err
	}
	if err := command(exec.Command("go", "build", "-modfile=tools/go.mod", "-o", filepath.Join(b.dir, "crane"), "github.com/google/go-containerregistry/cmd/crane")); err != nil {
		return err
	}
	images, err := writeLayout(x.layout, x.runs+2)
	if err != nil {
		return err
	}
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for _, addr := range []*string{&x.a, &x.b} {
		var stop func()
		if *addr, stop, err = x.dockerRegistry(); err != nil {
			return err
		}
		stops = append(stops, stop)
	}
	for _, tag := range images { // all of them to a, the first also to where b has it
		if err := command(exec.Command(b.bin, "copy", "--quiet", "oci:"+x.layout+":"+tag, x.a+"/app:"+tag)); err != nil {
			return err
		}
	}
	if err := keepOnly(x.layout, "1"); err != nil { // crane pushes what is alone
		return err
	}
	for _, c := range copiers {
		if err := command(exec.Command(b.bin, "copy", "--quiet", x.a+"/app:1", x.b+"/"+c.name+"/app:1")); err != nil {
			return err
		}
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## W6: copies\n\nAn index of %d platforms with %d layers each, %d MB, between two of Debian's docker-registry on the loopback. crane %s, %s.\n",
		copyPlatforms, copyLayers, copyBytes/1_000_000, line(filepath.Join(b.dir, "crane"), "version"), line("skopeo", "--version"))
	fmt.Fprintf(&w, "Medians of interleaved runs; the ratio is the median of the ratios of each run to the best peer of the same run. Peaks are of resident memory (ru_maxrss).\n\n")
	fmt.Fprintf(&w, "Two requests of manifestctl's look for what refers to the images, which its peers leave behind: the list of referrers, which this registry lacks, and the\n"+
		"tags, by which cosign names signatures. Neither tells what the other would: a copy without one of them could lose evidence. --referrers=false makes neither.\n\n")
	fmt.Fprintln(&w, "| work | manifestctl | crane | skopeo | ratio | target | CPU: manifestctl / crane / skopeo | requests | peak MiB |")
	fmt.Fprintln(&w, "|---|---|---|---|---|---|---|---|---|")
	for _, way := range ways {
		if !strings.Contains(way.name, b.way) {
			continue
		}
		if err := x.measure(&w, way); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// measure runs one way and writes its row.
func (x *transfers) measure(w io.Writer, way way) error {
	with := slices.Clone(copiers)
	if way.with != nil {
		with = slices.DeleteFunc(with, func(c copier) bool { return !slices.Contains(way.with, c.name) })
	}
	a, b := x.a, x.b
	if way.slow {
		pa, err := startProxy("-delay=20ms", "-rate=20000000", x.a)
		if err != nil {
			return err
		}
		defer pa.stop()
		pb, err := startProxy("-delay=20ms", "-rate=20000000", x.b)
		if err != nil {
			return err
		}
		defer pb.stop()
		a, b = pa.addr, pb.addr
	}
	runs := x.runs
	if way.only > 0 {
		runs = min(runs, way.only)
	}
	times := map[string][]time.Duration{}
	cpu := map[string][]time.Duration{}
	peaks := map[string]int64{}
	for n := range runs + 1 {
		order := slices.Clone(with)
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			s, err := x.once(c, way, a, b, n)
			if err != nil {
				return err
			}
			if n > 0 { // the first run warms caches
				times[c.name] = append(times[c.name], s.wall)
				cpu[c.name] = append(cpu[c.name], s.cpu)
				peaks[c.name] = max(peaks[c.name], s.peak)
			}
		}
	}
	requests := map[string]string{}
	pa, err := startProxy(x.a)
	if err != nil {
		return err
	}
	defer pa.stop()
	pb, err := startProxy(x.b)
	if err != nil {
		return err
	}
	defer pb.stop()
	var before int64
	for _, c := range with {
		if _, err := x.once(c, way, pa.addr, pb.addr, runs+1); err != nil {
			return err
		}
		na, err := pa.count()
		if err != nil {
			return err
		}
		nb, err := pb.count()
		if err != nil {
			return err
		}
		requests[c.name] = strconv.FormatInt(na+nb-before, 10)
		before = na + nb
	}
	var ratios []float64
	for i := range times["manifestctl"] {
		best := times["crane"][i]
		if s := times["skopeo"]; s != nil {
			best = min(best, s[i])
		}
		ratios = append(ratios, float64(times["manifestctl"][i])/float64(best))
	}
	cell := func(of func(name string) string) string {
		var list []string
		for _, c := range with {
			list = append(list, of(c.name))
		}
		return strings.Join(list, " / ")
	}
	middle := func(name string) string {
		if times[name] == nil {
			return ""
		}
		return ms(median(times[name]))
	}
	fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f | %s | %s | %s | %s |\n", way.name, middle("manifestctl"), middle("crane"), middle("skopeo"), median(ratios), way.target,
		cell(func(n string) string { return ms(median(cpu[n])) }), cell(func(n string) string { return requests[n] }), cell(func(n string) string { return strconv.FormatInt(peaks[n]>>10, 10) }))
	return nil
}

func median[T cmp.Ordered](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// spent is what a run took.
type spent struct {
	wall, cpu time.Duration
	peak      int64 // KiB
}

// once runs a program one way.
func (x *transfers) once(c copier, way way, a, b string, n int) (s spent, err error) {
	home, err := os.MkdirTemp(x.dir, "home-")
	if err != nil {
		return s, err
	}
	from, to, undo := way.ends(x, a, b, c.name, n)
	cmd := c.command(x.bench, home, from, to)
	if cmd.SysProcAttr != nil {
		if err := os.Chown(home, nobody, nobody); err != nil {
			return s, err
		}
	}
	start := time.Now()
	err = command(cmd)
	s.wall = time.Since(start)
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = usage.Maxrss
	}
	return s, errors.Join(err, undo(), os.RemoveAll(home))
}

// dockerRegistry starts Debian's docker-registry with a directory of its own.
func (x *transfers) dockerRegistry() (addr string, stop func(), err error) {
	dir, err := os.MkdirTemp(x.dir, "registry-")
	if err != nil {
		return "", nil, err
	}
	if addr, err = freePort(); err != nil {
		return "", nil, err
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(dir, "data"), addr), 0o644); err != nil {
		return "", nil, err
	}
	c := exec.Command("docker-registry", "serve", config)
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	return addr, func() { _ = c.Process.Kill(); _ = c.Wait() }, reachable(addr)
}

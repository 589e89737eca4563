package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// farAway is the delay of each request to a registry that is not on this machine.
const farAway = 20 * time.Millisecond

// listTool is one of those that are compared on manifest lists. A nil function says that it cannot do it.
type listTool struct {
	name    string
	slow    bool // seconds: few runs are enough
	help    func() *exec.Cmd
	inspect func(ref string) *exec.Cmd
	create  func(dest string, sources []string) []*exec.Cmd // and push
}

// lists is W5 (an index of N images created and pushed) and W7 (inspect, start-up), all tools interleaved. Requests are
// counted by a proxy in front of the registry, which can add a delay to each.
func (b *bench) lists() error {
	registry, stop, err := (&transfers{bench: b, dir: b.dir}).dockerRegistry()
	if err != nil {
		return err
	}
	defer stop()
	near, err := startProxy(registry)
	if err != nil {
		return err
	}
	defer near.stop()
	far, err := startProxy("-delay", farAway.String(), registry)
	if err != nil {
		return err
	}
	defer far.stop()
	crane := filepath.Join(b.dir, "crane")
	build := exec.Command("go", "build", "-modfile=tools/go.mod", "-trimpath", "-ldflags=-s -w", "-o", crane, "github.com/google/go-containerregistry/cmd/crane")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := command(build); err != nil {
		return err
	}
	conf := filepath.Join(b.dir, "registries.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n[[registry]]\nlocation = %q\ninsecure = true\n", near.addr, far.addr), 0o644); err != nil {
		return err
	}
	most := 50
	names, err := b.listImages(near.addr, most)
	if err != nil {
		return err
	}
	if err := command(exec.Command(b.bin, "merge", "-q", "-t", near.addr+"/w5:index", near.addr+names[0])); err != nil { // some inspect nothing else
		return err
	}
	tools := b.listTools(crane, conf)
	var out bytes.Buffer
	fmt.Fprintf(&out, "\n## Manifest lists\n\nW5: an index of images of one repository, created and pushed. W7: one manifest, and how long a program takes to say what it can.\n")
	fmt.Fprintf(&out, "Time, and requests to the registry, Debian's docker-registry. Peers: crane %s, %s, %s, %s.\n\n|  |", line(crane, "version"),
		line("skopeo", "--version"), line("buildah", "--version"), line("podman", "--version"))
	for _, t := range tools {
		fmt.Fprintf(&out, " %s |", t.name)
	}
	fmt.Fprintf(&out, "\n|---|%s\n", strings.Repeat("---|", len(tools)))
	row := func(name string, p *proxy, make func(listTool) func() []*exec.Cmd) error {
		cells, err := b.compare(tools, p, make)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&out, "| %s | %s |\n", name, strings.Join(cells, " | "))
		return nil
	}
	for _, w := range []struct {
		n int
		p *proxy
	}{{10, near}, {most, near}, {most, far}} {
		name := fmt.Sprintf("W5: index of %d", w.n)
		if w.p == far {
			name += fmt.Sprintf(", %s a request", farAway)
		}
		var sources []string
		for _, n := range names[:w.n] {
			sources = append(sources, w.p.addr+n)
		}
		err := row(name, w.p, func(t listTool) func() []*exec.Cmd {
			if t.create == nil {
				return nil
			}
			return func() []*exec.Cmd {
				return t.create(w.p.addr+"/w5:"+strings.NewReplacer(" ", "-", ",", "").Replace(t.name), sources)
			}
		})
		if err != nil {
			return err
		}
	}
	err = row("W7: inspect, one manifest", near, func(t listTool) func() []*exec.Cmd {
		if t.inspect == nil {
			return nil
		}
		return func() []*exec.Cmd { return []*exec.Cmd{t.inspect(near.addr + "/w5:index")} }
	})
	if err != nil {
		return err
	}
	err = row("W7: start-up (`--help`)", near, func(t listTool) func() []*exec.Cmd {
		if t.help == nil {
			return nil
		}
		return func() []*exec.Cmd { return []*exec.Cmd{t.help()} }
	})
	b.sections = append(b.sections, out.Bytes())
	return err
}

func (b *bench) listTools(crane, conf string) []listTool {
	ours := func(args ...string) *exec.Cmd {
		return exec.Command(b.bin, append([]string{"--root", filepath.Join(b.dir, "store")}, args...)...)
	}
	storage := func(name string) func(args ...string) *exec.Cmd {
		return func(args ...string) *exec.Cmd {
			global := []string{"--root", filepath.Join(b.dir, name), "--runroot", filepath.Join(b.dir, name+"-run"), "--storage-driver", "vfs"}
			if name == "buildah" {
				global = append(global, "--registries-conf", conf)
			}
			c := exec.Command(name, append(global, args...)...)
			c.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+conf)
			return c
		}
	}
	buildah, podman := storage("buildah"), storage("podman")
	drafts := func(tool func(...string) *exec.Cmd) func(string, []string) []*exec.Cmd {
		return func(dest string, sources []string) []*exec.Cmd {
			rm := tool("manifest", "rm", dest)
			quiet := exec.Command("sh", "-c", strings.Join(rm.Args, " ")+" >/dev/null 2>&1 || true")
			quiet.Env = rm.Env
			var refs []string
			for _, s := range sources {
				refs = append(refs, "docker://"+s)
			}
			return []*exec.Cmd{quiet, tool(append([]string{"manifest", "create", dest}, refs...)...), tool("manifest", "push", "--all", "--tls-verify=false", dest, "docker://"+dest)}
		}
	}
	return []listTool{
		{
			name:    "manifestctl",
			help:    func() *exec.Cmd { return ours("--help") },
			inspect: func(r string) *exec.Cmd { return ours("inspect", "--raw", r) },
			create: func(dest string, sources []string) []*exec.Cmd {
				return []*exec.Cmd{ours(append([]string{"merge", "-q", "-t", dest}, sources...)...)}
			},
		},
		{
			name: "manifestctl create, push",
			create: func(dest string, sources []string) []*exec.Cmd {
				return []*exec.Cmd{ours(append([]string{"create", "--replace", dest}, sources...)...), ours("push", "-q", "-p", dest)}
			},
		},
		{
			name:    "crane",
			help:    func() *exec.Cmd { return exec.Command(crane, "--help") },
			inspect: func(r string) *exec.Cmd { return exec.Command(crane, "manifest", "--insecure", r) },
			create: func(dest string, sources []string) []*exec.Cmd {
				args := []string{"index", "append", "--insecure", "-t", dest}
				for _, s := range sources {
					args = append(args, "-m", s)
				}
				return []*exec.Cmd{exec.Command(crane, args...)}
			},
		},
		{
			name: "skopeo",
			help: func() *exec.Cmd { return exec.Command("skopeo", "--help") },
			inspect: func(r string) *exec.Cmd {
				return exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+r)
			},
		},
		{
			name: "buildah", slow: true, create: drafts(buildah),
			help:    func() *exec.Cmd { return exec.Command("buildah", "--help") },
			inspect: func(r string) *exec.Cmd { return buildah("manifest", "inspect", r) },
		},
		{
			name: "podman", slow: true, create: drafts(podman),
			help:    func() *exec.Cmd { return exec.Command("podman", "--help") },
			inspect: func(r string) *exec.Cmd { return podman("manifest", "inspect", r) },
		},
	}
}

// listImages pushes n images that differ in the version of their operating system, and returns their names behind the address.
func (b *bench) listImages(addr string, n int) ([]string, error) {
	dir := filepath.Join(b.dir, "w5")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	spec := "version: 1\nplatforms: [linux/amd64]\nfrom: scratch\nsteps:\n  - files: [{path: /a, content: b}]\n"
	if err := os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec), 0o644); err != nil {
		return nil, err
	}
	base := addr + "/w5:base"
	if err := command(b.ours("-t", base, "--push", dir)); err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("/w5:%d", i)
		single := exec.Command(b.bin, "copy", "-q", base, "docker-archive:"+filepath.Join(dir, "base.tar"))
		if i == 0 {
			if err := command(single); err != nil {
				return nil, err
			}
		}
		err := command(exec.Command(b.bin, "mutate", "-q", "docker-archive:"+filepath.Join(dir, "base.tar"), "-t", addr+out[i],
			"--set-platform", fmt.Sprintf("linux/amd64:1.%d", i)))
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compare runs what each tool does in turn, b.runs times, and returns a cell for each.
func (b *bench) compare(tools []listTool, p *proxy, make func(listTool) func() []*exec.Cmd) ([]string, error) {
	type sample struct {
		times    []time.Duration
		requests int64
	}
	all := map[string]*sample{}
	for i := range b.runs + 1 {
		for _, t := range tools {
			commands := make(t)
			if commands == nil || t.slow && i > 3 {
				continue
			}
			s := all[t.name]
			if s == nil {
				s = &sample{}
				all[t.name] = s
			}
			list := commands()
			before, err := p.count()
			if err != nil {
				return nil, err
			}
			start := time.Now()
			for _, c := range list {
				if err := command(c); err != nil {
					return nil, err
				}
			}
			took := time.Since(start)
			after, err := p.count()
			if err != nil {
				return nil, err
			}
			if i > 0 { // the first run warms caches
				s.times = append(s.times, took)
				s.requests = after - before
			}
		}
	}
	var cells []string
	for _, t := range tools {
		s := all[t.name]
		if s == nil {
			cells = append(cells, "")
			continue
		}
		slices.Sort(s.times)
		cell := ms(s.times[len(s.times)/2])
		if s.requests > 0 {
			cell += fmt.Sprintf(", %d", s.requests)
		}
		cells = append(cells, cell)
	}
	return cells, nil
}

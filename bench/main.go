// Command bench measures builds against buildah and against the physical floor
// (the bare processes), all in one run and interleaved, and writes the table that
// bench/RESULTS.md is. It runs as root: buildah needs a handler registered on the
// host for foreign architectures, which is registered for the run and removed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "bench/RESULTS.md", "where the table goes")
	runs := flag.Int("runs", 15, "runs of each measurement; the median counts")
	only := flag.String("only", "", "builds, dockerfiles, nodes, transfers, lists, verify, trees, apt, owners, curves or rebuilds; \"\" is everything")
	way := flag.String("way", "", "of the transfers and Dockerfiles those whose name holds this")
	if os.Getenv(proxyEnv) != "" {
		if err := runProxy(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench: proxy:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := run(*out, *runs, *only, *way); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the place of one run of all measurements.
type bench struct {
	dir      string
	bin      string // manifestctl
	registry string // host:port
	runs     int
	way      string // part of the name of a way to copy
	rows     []row
	sections [][]byte // more tables, finished
}

// row is one line of the table; times are medians.
type row struct {
	work               string
	ours, peer, floor  time.Duration
	peerName, floorWhy string
	target             string
}

func run(out string, runs int, only, way string) (err error) {
	dir, err := os.MkdirTemp("", "manifestctl-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmountBelow(dir), os.RemoveAll(dir)) }()
	b := &bench{dir: dir, bin: filepath.Join(dir, "manifestctl"), runs: runs, way: way}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", b.bin, "./cmd/manifestctl") // as make build does
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := command(build); err != nil {
		return err
	}
	for _, area := range []struct {
		name    string
		measure func() error
	}{
		{"builds", b.builds},
		{"dockerfiles", b.dockerfiles},
		{"rebuilds", b.rebuilds},
		{"curves", b.curves},
		{"trees", b.trees},
		{"apt", b.apt},
		{"owners", b.owners},
		{"nodes", b.nodes},
		{"transfers", b.transfers},
		{"lists", b.lists},
		{"verify", b.verifies},
	} {
		if only != "" && only != area.name {
			continue
		}
		if err := area.measure(); err != nil {
			return fmt.Errorf("%s: %w", area.name, err)
		}
	}
	return os.WriteFile(out, b.table(), 0o644)
}

// builds is W1 and W2.
func (b *bench) builds() error {
	stop, err := b.serveBase()
	if err != nil {
		return err
	}
	defer stop()
	undo, err := register()
	if err != nil {
		return err
	}
	defer undo()
	for _, measure := range []func() error{b.headline, b.cached, b.chain} {
		if err := measure(); err != nil {
			return err
		}
	}
	return nil
}

// command runs c and gives its output in the error.
func command(c *exec.Cmd) error {
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, b)
	}
	return nil
}

// timed runs each of commands in turn, runs times, and returns the medians.
func (b *bench) timed(commands ...func() []*exec.Cmd) ([]time.Duration, error) {
	all := make([][]time.Duration, len(commands))
	for i := range b.runs + 1 {
		for j, make := range commands {
			list := make()
			start := time.Now()
			for _, c := range list {
				if err := command(c); err != nil {
					return nil, err
				}
			}
			if i > 0 { // the first run warms caches
				all[j] = append(all[j], time.Since(start))
			}
		}
	}
	medians := make([]time.Duration, len(all))
	for i, a := range all {
		slices.Sort(a)
		medians[i] = a[len(a)/2]
	}
	return medians, nil
}

// context writes a spec and a Dockerfile that mean the same.
func (b *bench) context(name, platforms string, steps []string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	spec := fmt.Sprintf("version: 1\nplatforms: [%s]\nfrom: %s/busybox\nsteps:\n", platforms, b.registry)
	docker := fmt.Sprintf("FROM %s/busybox\n", b.registry)
	for _, s := range steps {
		spec += fmt.Sprintf("  - run: %q\n", s)
		docker += "RUN " + s + "\n"
	}
	if len(steps) == 0 {
		spec = strings.TrimSuffix(spec, "steps:\n") + "steps: []\n"
	}
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec), 0o644),
		os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(docker), 0o644))
}

func (b *bench) bare(arch string, args ...string) *exec.Cmd {
	box := filepath.Join(b.dir, "busybox-"+arch)
	if _, err := os.Stat(box); err != nil {
		tar := exec.Command("tar", "-xOf", filepath.Join(b.dir, "base", arch+".tar"), "./bin/busybox")
		data, err := tar.Output()
		if err == nil {
			err = os.WriteFile(box, data, 0o755)
		}
		if err != nil {
			return exec.Command("false")
		}
	}
	if arch == runtime.GOARCH {
		return exec.Command(box, args...)
	}
	return exec.Command("qemu-aarch64-static", append([]string{box}, args...)...)
}

// headline is W1: two platforms, one RUN, no cache, pushed.
func (b *bench) headline() error {
	dir, err := b.context("w1", "linux/amd64, linux/arm64", []string{"uname -a"})
	if err != nil {
		return err
	}
	t, err := b.timed(
		func() []*exec.Cmd { return []*exec.Cmd{b.ours("--no-cache", "-t", b.registry+"/w1", "--push", dir)} },
		func() []*exec.Cmd { return b.buildahPush("w1", dir, "--no-cache") },
		func() []*exec.Cmd { return []*exec.Cmd{b.bare("amd64", "uname", "-a"), b.bare("arm64", "uname", "-a")} },
	)
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{
		work: "W1: busybox, `RUN uname -a`, amd64+arm64, no cache, pushed", ours: t[0], peer: t[1], floor: t[2],
		peerName: "buildah --jobs 2", floorWhy: "two bare execs", target: "at most 1/3 of buildah",
	})
	return nil
}

func (b *bench) cached() error {
	dir := filepath.Join(b.dir, "w1")
	t, err := b.timed(
		func() []*exec.Cmd { return []*exec.Cmd{b.ours("-t", b.registry+"/w1", "--push", dir)} },
		func() []*exec.Cmd { return b.buildahPush("w1", dir, "--layers") },
	)
	if err != nil {
		return err
	}
	b.rows = append(b.rows, row{work: "W1 again, all cached, pushed", ours: t[0], peer: t[1], peerName: "buildah --layers"})
	return nil
}

// buildahPush is a build of both platforms into a manifest list, and its push.
func (b *bench) buildahPush(name, dir string, extra ...string) []*exec.Cmd {
	list := b.registry + "/" + name + "-buildah"
	rm := b.buildah("manifest", "rm", list)
	return []*exec.Cmd{
		exec.Command("sh", "-c", strings.Join(rm.Args, " ")+" >/dev/null 2>&1 || true"),
		b.buildah(append([]string{
			"bud", "--jobs", "2", "--platform", "linux/amd64,linux/arm64", "--tls-verify=false",
			"--isolation", "chroot", "--network", "host", "--manifest", list, "-f", filepath.Join(dir, "Containerfile"),
		}, append(extra, dir)...)...),
		b.buildah("manifest", "push", "--all", "--tls-verify=false", list, "docker://"+list),
	}
}

// chain is W2: what one more `RUN true` costs, from a chain of 20 and one of none.
func (b *bench) chain() error {
	const steps = 20
	for _, arch := range []string{"amd64", "arm64"} {
		long, err := b.context("w2-"+arch, "linux/"+arch, slices.Repeat([]string{"true"}, steps))
		if err != nil {
			return err
		}
		short, err := b.context("w2-none-"+arch, "linux/"+arch, nil)
		if err != nil {
			return err
		}
		platform := []string{"bud", "--platform", "linux/" + arch, "--tls-verify=false", "--isolation", "chroot", "--network", "host", "--no-cache", "--layers", "-f"}
		t, err := b.timed(
			func() []*exec.Cmd { return []*exec.Cmd{b.ours("--no-cache", long)} },
			func() []*exec.Cmd { return []*exec.Cmd{b.ours("--no-cache", short)} },
			func() []*exec.Cmd { return []*exec.Cmd{b.bare(arch, "sh", "-c", "true")} },
		)
		if err != nil {
			return err
		}
		few := *b
		few.runs = min(b.runs, 3) // seconds each
		p, err := few.timed(
			func() []*exec.Cmd {
				return []*exec.Cmd{b.buildah(append(platform, filepath.Join(long, "Containerfile"), long)...)}
			},
			func() []*exec.Cmd {
				return []*exec.Cmd{b.buildah(append(platform, filepath.Join(short, "Containerfile"), short)...)}
			},
		)
		if err != nil {
			return err
		}
		b.rows = append(b.rows, row{
			work: fmt.Sprintf("W2: one more `RUN true`, %s, layer committed (chain of %d)", arch, steps),
			ours: (t[0] - t[1]) / steps, peer: (p[0] - p[1]) / steps, floor: t[2],
			peerName: "buildah --layers", floorWhy: "bare exec of `sh -c true`", target: "at most 5 ms over the floor",
		})
	}
	return nil
}

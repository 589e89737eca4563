package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// aptDockerfile is W3: what many images begin with, on two architectures; qemu itself is the floor of one of them.
const aptDockerfile = `FROM %s/debian:bookworm
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends curl ca-certificates
`

// apt is W3, cold, in pairs with BuildKit, whose emulators are registered on the host. Both download from Debian's mirror.
func (b *bench) apt() error {
	stop, err := b.serve()
	if err != nil {
		return err
	}
	defer stop()
	undo, err := register()
	if err != nil {
		return err
	}
	defer undo()
	if err := b.debianBase(); err != nil {
		return err
	}
	ctx := context.Background()
	version, daemons, stopDaemons, err := b.buildkit(ctx, 1)
	if err != nil {
		return err
	}
	defer stopDaemons()

	dir := filepath.Join(b.dir, "apt")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, aptDockerfile, b.registry), 0o644); err != nil {
		return err
	}
	const platforms = "linux/amd64,linux/arm64"
	ours := func(more ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			return b.ours(append(more, "--no-cache", "--platform", platforms, "-f", file, "-o", "type=oci,dest="+filepath.Join(dir, "ours.tar"), dir)...)
		}
	}
	ways := []struct {
		name, target string
		cmd          func() *exec.Cmd
	}{
		{"BuildKit", "", func() *exec.Cmd {
			return daemons[0].Command(ctx, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--no-cache",
				"--opt", "platform="+platforms, "--opt", "force-network-mode=host", "--allow", "network.host",
				"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=oci,dest="+filepath.Join(dir, "buildkit.tar"))
		}},
		{"manifestctl", "≤ 1.05", ours()},
	}
	if help, _ := b.ours("--help").Output(); bytes.Contains(help, []byte("--accelerate")) {
		ways = append(ways, struct {
			name, target string
			cmd          func() *exec.Cmd
		}{"manifestctl --accelerate", "≤ 0.75", ours("--accelerate")})
	}
	times, ratios := make([][]time.Duration, len(ways)), make([][]float64, len(ways))
	for i := range min(b.runs, 5) + 1 {
		var peer time.Duration
		for j, way := range ways {
			start := time.Now()
			if err := command(way.cmd()); err != nil {
				return err
			}
			took := time.Since(start)
			if j == 0 {
				peer = took
			}
			if i > 0 { // the first run pulls the base
				times[j], ratios[j] = append(times[j], took), append(ratios[j], float64(took)/float64(peer))
			}
		}
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## W3: apt-get\n\n`apt-get update && apt-get install curl ca-certificates` on Debian bookworm, amd64 and arm64, cold, from Debian's mirror. Ratios are medians of those of each pair. BuildKit is %s.\n\n", version)
	fmt.Fprintln(&w, "| builder | time | ratio | target |\n|---|---|---|---|")
	for j, way := range ways {
		fmt.Fprintf(&w, "| %s | %s | %.2f | %s |\n", way.name, ms(median(times[j])), median(ratios[j]), way.target)
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// debianBase pushes a Debian that apt runs in, configured by its own maintainer scripts.
func (b *bench) debianBase() error {
	dir := filepath.Join(b.dir, "debian")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	spec, err := os.ReadFile("examples/debian/base/rootfs.yaml")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs.yaml"), spec, 0o644); err != nil {
		return err
	}

	if err := command(exec.Command("scripts/debian-base.sh", dir, "amd64", "arm64")); err != nil {
		return err
	}
	return command(b.ours("-t", b.registry+"/debian:bookworm", "--push", strings.TrimSuffix(dir, "/")))
}

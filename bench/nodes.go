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

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// overheadTarget is how many times longer than buildctl a build on the same node may take.
const overheadTarget = 1.1

// nodes compares builds on a BuildKit node with buildctl on the same node, and four platforms here with the same on two
// nodes. The nodes are on this machine, so what is measured is what the way to them costs, not what more processors bring.
func (b *bench) nodes() error {
	stop, err := b.serveBase()
	if err != nil {
		return err
	}
	defer stop()
	ctx := context.Background()
	_, daemons, stopDaemons, err := b.buildkit(ctx, 2)
	if err != nil {
		return err
	}
	defer stopDaemons()
	for _, args := range [][]string{
		{"--name", "one", daemons[0].Addr}, {"--name", "two", daemons[0].Addr}, {"--name", "two", "--append", daemons[1].Addr},
	} {
		if err := command(b.withConfig(exec.Command(b.bin, append([]string{"builder", "create"}, args...)...))); err != nil {
			return err
		}
	}
	var w bytes.Buffer
	fmt.Fprintln(&w, "\n## Nodes\n\nThe way over BuildKit nodes, which are on the same machine. Cold: nothing of it in any cache.\n\n| work | manifestctl on the node | buildctl on the node | ratio | target |\n|---|---|---|---|---|")
	for _, work := range b.dockerfileWorks()[:2] {
		if err := b.overhead(ctx, &w, daemons[0], work); err != nil {
			return fmt.Errorf("%s: %w", work.name, err)
		}
	}
	if err := b.fourPlatforms(&w); err != nil {
		return err
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// withConfig gives a command the builders of the bench.
func (b *bench) withConfig(c *exec.Cmd) *exec.Cmd {
	c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(b.dir, "config"))
	return c
}

// overhead builds one Dockerfile on one node by both ways in turn, each time another one.
func (b *bench) overhead(ctx context.Context, w *bytes.Buffer, daemon *oracle.Daemon, work dockerfileWork) error {
	dir := filepath.Join(b.dir, "node-"+strings.Fields(work.name)[0])
	if err := os.MkdirAll(filepath.Join(dir, "context"), 0o755); err != nil {
		return err
	}
	if work.context != nil {
		if err := work.context(filepath.Join(dir, "context")); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "Dockerfile")
	ways := []func() *exec.Cmd{
		func() *exec.Cmd {
			return b.withConfig(b.ours("--builder", "one", "-f", file, "--verify=off", "-o", "type=oci,dest="+filepath.Join(dir, "ours.tar"), filepath.Join(dir, "context")))
		},
		func() *exec.Cmd {
			return daemon.Command(ctx, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
				"--local", "context="+filepath.Join(dir, "context"), "--local", "dockerfile="+dir,
				"--output", "type=oci,dest="+filepath.Join(dir, "buildkit.tar"))
		},
	}
	took := make([][]time.Duration, len(ways))
	number := 0
	for i := range min(b.runs, 7) + 1 {
		for j, make := range ways {
			number++ // neither finds what the other left
			if err := os.WriteFile(file, fmt.Appendf(nil, work.text, 1000+number), 0o644); err != nil {
				return err
			}
			start := time.Now()
			if err := command(make()); err != nil {
				return err
			}
			if i > 0 { // the first run pulls bases
				took[j] = append(took[j], time.Since(start))
			}
		}
	}
	ours, theirs := median(took[0]), median(took[1])
	fmt.Fprintf(w, "| %s, cold | %s | %s | %.2f | at most %.1f |\n", work.name, ms(ours), ms(theirs), float64(ours)/float64(theirs), overheadTarget)
	return nil
}

// fourPlatforms builds the same steps for four platforms of this processor here and on two nodes.
func (b *bench) fourPlatforms(w *bytes.Buffer) error {
	dir := filepath.Join(b.dir, "four")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755); err != nil {
		return err
	}
	text := "FROM scratch\nCOPY busybox /bin/sh\nARG TARGETPLATFORM\n" +
		"RUN i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo $TARGETPLATFORM %d > /out\n"
	took := [2][]time.Duration{}
	for i := range min(b.runs, 7) + 1 {
		for j, builder := range []string{"local", "two"} {
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, text, 2*i+j), 0o644); err != nil {
				return err
			}
			start := time.Now()
			err := command(b.withConfig(b.ours("--builder", builder, "--verify=off", "--platform", "linux/amd64,linux/386,linux/amd64/v2,linux/amd64/v3",
				"-o", "type=oci,dest="+filepath.Join(dir, builder+".tar"), dir)))
			if err != nil {
				return err
			}
			if i > 0 {
				took[j] = append(took[j], time.Since(start))
			}
		}
	}
	here, nodes := median(took[0]), median(took[1])
	fmt.Fprintf(w, "\n| work | here | two nodes on this machine | ratio |\n|---|---|---|---|\n| 4 platforms, a second of processor each | %s | %s | %.2f |\n",
		ms(here), ms(nodes), float64(nodes)/float64(here))
	return nil
}

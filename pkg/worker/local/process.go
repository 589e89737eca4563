package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// Process is one process in an image. Its changes are thrown away.
type Process struct {
	Ref        string
	Platform   platform.Platform
	Args       []string  // after the entrypoint; none is the image's command
	Entrypoint *[]string // nil is the image's
	Env        []string  // KEY=value, over the image's
	Cwd, User  string    // "" is the image's
	HostNet    bool
	Volumes    []Volume
	Stdin      io.Reader // nil is empty
	Stdout     io.Writer
	Stderr     io.Writer

	Terminal bool                  // it has a terminal: Stdin is typed, Stdout is shown
	Sizes    <-chan sandbox.Size   // of the terminal
	Signals  <-chan syscall.Signal // for it, while it runs
}

// Volume is a directory or file of the host in the root file system of a process.
type Volume struct {
	Source, Target string
	ReadOnly       bool
}

// ErrNoCommand reports an image that says of itself what to run nowhere.
var ErrNoCommand = errors.New("no command given, and the image has none")

// Process runs p and waits for its end; a *[sandbox.ExitError] says how it ended.
func (w *Worker) Process(ctx context.Context, p Process) (err error) {
	defer w.Reading()()
	op := graph.Image{Ref: p.Ref}
	base, err := w.image(ctx, graph.New(op, p.Platform, graph.Meta{Name: "FROM " + p.Ref}), op)
	if err != nil {
		return err
	}
	var cfg ocispec.Image
	if err := json.Unmarshal(base.Config, &cfg); err != nil {
		return fmt.Errorf("reading the config of %s: %w", p.Ref, err)
	}
	entry, args := cfg.Config.Entrypoint, p.Args
	if p.Entrypoint != nil {
		entry = *p.Entrypoint
	} else if len(args) == 0 {
		args = cfg.Config.Cmd
	}
	if len(entry)+len(args) == 0 {
		return fmt.Errorf("%s: %w", p.Ref, ErrNoCommand)
	}
	user := p.User
	if user == "" {
		user = cfg.Config.User
	}
	pool, err := w.sandbox(ctx)
	if err != nil {
		return err
	}
	step := sandbox.Step{
		Args: append(append([]string{}, entry...), args...), HostNet: p.HostNet, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr,
		Terminal: p.Terminal, Sizes: p.Sizes, Signals: p.Signals,
	}
	w.limit(&step, pool)
	if err := w.process(ctx, &step, graph.Exec{Env: p.Env, Cwd: p.Cwd, User: user}, base); err != nil {
		return err
	}
	for _, v := range p.Volumes {
		if _, err := os.Stat(v.Source); err != nil {
			return fmt.Errorf("volume: %w", err)
		}
		step.Mounts = append(step.Mounts, sandbox.Mount{Kind: sandbox.MountDir, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	dir, err := w.trees.scratch()
	if err != nil {
		return err
	}
	leave, err := w.rootfs(ctx, &step, dir, base.Layers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	emulated := watch(&step, p.Platform)
	return emulated.explain(pool.Run(ctx, step))
}

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// FailedStep is a step whose process failed, while what it left is still there.
type FailedStep struct {
	Name     string // "RUN make", as its author wrote it
	Platform string
	Err      error
	// Shell runs a shell in what the step left, with its environment, directory, user and mounts, until it exits. What it
	// changes is thrown away, but for cache mounts.
	Shell func(context.Context, Console) error
}

// Console is the terminal of a shell.
type Console struct {
	Stdin  io.Reader
	Stdout io.Writer
	Sizes  <-chan sandbox.Size
	Env    []string // KEY=value, over the step's
}

// failed lets somebody look at what a step left. It returns err.
func (w *Worker) failed(ctx context.Context, v *graph.Vertex, step sandbox.Step, err error) error {
	var exit *sandbox.ExitError
	if w.o.OnError == nil || !errors.As(err, &exit) || ctx.Err() != nil {
		return err
	}
	w.shells.Lock()
	defer w.shells.Unlock()
	w.o.OnError(FailedStep{Name: v.Meta.Name, Platform: v.Platform.String(), Err: err, Shell: func(ctx context.Context, c Console) error {
		return w.shell(ctx, step, c)
	}})
	return err
}

func (w *Worker) shell(ctx context.Context, step sandbox.Step, c Console) error {
	dir, err := w.trees.scratch()
	if err != nil {
		return err
	}
	if w.pool.Whole() {
		// The tree is what the step left.
	} else if _, err := os.Stat(step.Keep); err == nil { // else nothing was started
		step.Lowers = append([]string{step.Keep}, step.Lowers...)
	}
	step.Scratch = filepath.Join(dir, "work")
	if err := os.Mkdir(step.Scratch, 0o755); err != nil {
		return fmt.Errorf("making a scratch directory: %w", err)
	}
	step.Args = []string{"/bin/sh"}
	step.Env = mergeEnv(step.Env, c.Env)
	step.Resources.Timeout = 0 // somebody thinks
	step.Keep, step.KeepFailed, step.Diff, step.OKCodes = "", false, nil, nil
	step.Terminal, step.Stdin, step.Stdout, step.Stderr, step.Sizes = true, c.Stdin, c.Stdout, nil, c.Sizes
	return w.pool.Run(ctx, step)
}

package main

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/manifestctl/manifestctl/internal/ui"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/event"
)

// The values of --on-error.
const (
	onErrorFail  = "fail"
	onErrorShell = "shell"
)

// isTerminal reports whether a stream of this program is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// onError is --on-error: with a shell, events of other steps wait while it is open. It returns the mode of the display
// and what events go through.
func (e *env) onError(ctx context.Context, value string, mode ui.Mode, o *build.Options) (ui.Mode, *holder, error) {
	g := &holder{}
	switch value {
	case onErrorFail:
		return mode, g, nil
	case onErrorShell:
	default:
		return mode, nil, usagef("--on-error %s: want fail or shell", value)
	}
	if !isTerminal(e.stdin) || !isTerminal(e.stderr) {
		return mode, nil, usagef("--on-error shell needs a terminal, and there is none").
			withHint("standard input and standard error must be one; in CI leave it away")
	}
	if mode == ui.Auto || mode == ui.TTY {
		mode = ui.Plain // a block that is redrawn would be drawn over the shell
	}
	o.OnError = func(f build.FailedStep) {
		g.hold()
		defer g.release()
		e.note("\n%s (%s) failed: %s\nThis is a shell in what it left; what you change is thrown away. Its end is the build's.", f.Name, f.Platform, f.Err)
		if err := e.shell(ctx, f); err != nil {
			e.note("no shell: %s", err)
		}
	}
	return mode, g, nil
}

// shell runs the shell of a failed step on the terminal.
func (e *env) shell(ctx context.Context, f build.FailedStep) (err error) {
	t, err := openTerminal()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	err = f.Shell(ctx, build.Console{Stdin: t, Stdout: t, Sizes: t.sizes, Env: []string{"TERM=" + e.getenv("TERM")}})
	var exit *build.ExitError
	if errors.As(err, &exit) && exit.Reason == "" {
		return nil // the code of the last command in it
	}
	return err
}

// heldBytes is how much output is kept while somebody has the terminal.
const heldBytes = 16 << 20

// holder holds events back while somebody has the terminal.
type holder struct {
	mu     sync.Mutex // guards what follows
	to     event.Sink
	held   bool
	queue  []event.Event
	output int
}

func (g *holder) sink(to event.Sink) event.Sink {
	g.to = to
	return func(ev event.Event) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.held {
			g.to.Emit(ev)
			return
		}
		if ev.Kind == event.Log {
			if g.output += len(ev.Data); g.output > heldBytes {
				return
			}
		}
		g.queue = append(g.queue, ev)
	}
}

func (g *holder) hold() {
	g.mu.Lock()
	g.held = true
	g.mu.Unlock()
}

func (g *holder) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ev := range g.queue {
		g.to.Emit(ev)
	}
	g.held, g.queue, g.output = false, nil, 0
}

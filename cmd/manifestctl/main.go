// Command manifestctl builds multi-architecture container images and works on
// their manifest lists, as an ordinary user and without a daemon.
//
// It holds flags, rendering and exit codes only: one file a command, each of
// which turns flags into options, makes one library call and prints what came
// of it. stdout carries results, stderr everything else.
package main

import (
	"context"
	"os"
	"time"

	"github.com/manifestctl/manifestctl/pkg/build"
)

func main() {
	collectLater()
	build.AgentMain() // does not return in a sandbox's agent
	ctx, stop := withSignals(context.Background(), time.Now, os.Exit)
	code := run(ctx, hostEnv(), os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, e *env, args []string) int {
	root := newRoot(e, args) //nolint:contextcheck // commands get theirs from cobra
	root.SetArgs(args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	defer func() {
		for _, f := range e.atEnd {
			f()
		}
	}()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	return e.fail(ctx, err)
}

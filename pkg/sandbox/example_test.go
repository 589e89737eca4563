//go:build linux

package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// A program that runs steps calls Main first: it is started again as the agent.
func ExamplePool_Run() {
	sandbox.Main()
	ctx := context.Background()
	pool, err := sandbox.NewPool(ctx, sandbox.Options{Handlers: emulate.Handlers(ctx, emulate.Options{})})
	if err != nil {
		fmt.Println(err) // names what this host refuses, and the mend
		return
	}
	defer pool.Close()
	err = pool.Run(ctx, sandbox.Step{
		Lowers:  []string{"/var/tmp/rootfs"}, // an unpacked image
		Scratch: "/var/tmp/scratch",          // empty, on the same file system
		Args:    []string{"sh", "-c", "id > /etc/who"},
		Env:     []string{"PATH=/usr/bin:/bin"},
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Diff:    os.Stdout, // the layer's tar
	})
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		fmt.Println("the command failed:", exit.Code)
	}
}

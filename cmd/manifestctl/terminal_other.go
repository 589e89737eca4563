//go:build !unix

package main

import (
	"fmt"
	"os"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// forwarded are the signals that run passes on beside those that end other commands.
var forwarded []os.Signal

// terminal: steps run on linux only.
type terminal struct {
	*os.File
	sizes chan build.Size
}

func openTerminal() (*terminal, error) {
	return nil, fmt.Errorf("a terminal for a step: %w", build.ErrUnsupported)
}

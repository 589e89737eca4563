//go:build !linux

package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Apply unpacks layers on Linux only.
func Apply(ctx context.Context, dir string, r io.Reader, o ApplyOptions) error {
	return fmt.Errorf("unpacking a layer: %w", errors.ErrUnsupported)
}

// Diff reads overlay directories on Linux only.
func Diff(ctx context.Context, upper string, w io.Writer, o DiffOptions) error {
	return fmt.Errorf("reading an overlay directory: %w", errors.ErrUnsupported)
}

// RemoveAll deletes the tree at dir.
func RemoveAll(dir string) error { return os.RemoveAll(dir) }

// State is what a tree was like at one moment; there is none outside of linux.
type State struct{}

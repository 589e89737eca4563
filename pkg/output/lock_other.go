//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package output

import (
	"context"
	"os"
)

// lockDirectory locks nothing here: a directory cannot be locked. index.json is still replaced as a whole,
// but of two names written at the same instant one can be lost.
func lockDirectory(context.Context, string) (unlock func(), err error) { return func() {}, nil }

// syncDirectory does nothing here: directories cannot be synced.
func syncDirectory(*os.Root, string) error { return nil }

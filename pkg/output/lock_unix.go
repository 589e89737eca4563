//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockDirectory takes an exclusive lock on dir itself, so that no file is needed for it: of two writers
// of an image layout, one reads index.json after the other has written it.
func lockDirectory(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil // closing unlocks
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOLCK):
			return func() { _ = f.Close() }, nil // no locks on this file system: as on other systems
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the lock of %s: %w", dir, context.Cause(ctx)), f.Close())
		case <-tick.C:
		}
	}
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(root *os.Root, name string) error {
	d, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) { // some file systems have nothing to sync there
		err = nil
	}
	return errors.Join(err, d.Close())
}

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// openBase opens the rootfs that a step began with, read-only and attached nowhere, and what was recorded about
// names in it that cannot carry their owner.
func openBase(st *wireStep) (*os.File, func(string) (layer.Owner, bool), error) {
	var recorded []map[string]layer.Owner
	for _, l := range st.Lowers {
		o, err := layer.ReadOwners(l)
		if err != nil {
			return nil, nil, err
		}
		if len(o) > 0 {
			recorded = append(recorded, o)
		}
	}
	owners := func(name string) (layer.Owner, bool) {
		for _, o := range recorded {
			if owner, ok := o[name]; ok {
				return owner, true
			}
		}
		return layer.Owner{}, false
	}
	fd, err := openLowers(st)
	if err != nil {
		return nil, nil, fmt.Errorf("opening what a step began with: %w", err)
	}
	return os.NewFile(uintptr(fd), "base"), owners, nil
}

// hasEntries reports whether there is anything in a directory.
func hasEntries(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// openLowers merges the step's layers. One alone needs no overlay.
func openLowers(st *wireStep) (int, error) {
	if len(st.Lowers) == 1 {
		return openDir(st.Lowers[0])
	}
	fd, err := newOverlay(st.Lowers, "", "")
	var fe *fsError
	if err == nil || !errors.As(err, &fe) || !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	dir := filepath.Join(st.Scratch, "base")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return -1, err
	}
	fd, err = mountOverlay(st.Lowers, "", "", dir)
	if err != nil {
		return -1, err
	}
	// The mount lives as long as the descriptor.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

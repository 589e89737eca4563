package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// scratchDir is a directory of this process. Its lock lies beside it, is taken before the directory is made, and goes
// after it: so a directory whose lock is free was left by a process that was killed.
type scratchDir struct {
	path string
	lock *flock.Flock
}

const lockSuffix = ".lock"

// newScratch makes a directory in parent whose name begins with prefix.
func newScratch(parent, prefix string) (*scratchDir, error) {
	for {
		f, err := os.CreateTemp(parent, prefix+"*"+lockSuffix)
		if err != nil {
			return nil, fmt.Errorf("making a scratch directory: %w", err)
		}
		made, err := f.Stat()
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("making a scratch directory: %w", err)
		}
		lock := flock.New(f.Name())
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("locking a scratch directory: %w", err)
		}
		now, err := os.Stat(f.Name())
		if !ok || err != nil || !os.SameFile(made, now) {
			_ = lock.Unlock() // a sweep took it between the two calls
			continue
		}
		path := strings.TrimSuffix(f.Name(), lockSuffix)
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("making a scratch directory: %w", err), lock.Unlock())
		}
		return &scratchDir{path, lock}, nil
	}
}

// sub makes a directory in d.
func (d *scratchDir) sub() (string, error) {
	dir, err := os.MkdirTemp(d.path, "")
	if err != nil {
		return "", fmt.Errorf("making a scratch directory: %w", err)
	}
	return dir, nil
}

// remove ends d; tree removes the directory.
func (d *scratchDir) remove(tree func(dir string) error) error {
	return errors.Join(tree(d.path), gone(os.Remove(d.path+lockSuffix)), d.lock.Unlock())
}

// sweepScratch removes what killed processes left in parent under prefix. Several may sweep at a time.
func sweepScratch(parent, prefix string, tree func(dir string) error) error {
	locks, err := filepath.Glob(filepath.Join(parent, prefix+"*[0-9]"+lockSuffix))
	if err != nil {
		return fmt.Errorf("looking for stale scratch directories: %w", err)
	}
	for _, name := range locks {
		lock := flock.New(name, flock.SetFlag(os.O_RDWR)) // one that is gone must not come back
		if ok, err := lock.TryLock(); err != nil || !ok {
			continue // alive, or gone
		}
		err := tree(strings.TrimSuffix(name, lockSuffix))
		err = errors.Join(err, gone(os.Remove(name)), lock.Unlock())
		if err != nil {
			return fmt.Errorf("removing the stale scratch directory %s: %w", strings.TrimSuffix(name, lockSuffix), err)
		}
	}
	return nil
}

// gone is err without that there was nothing to remove.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// scratch makes a directory for spooled data that goes when the worker is closed. It is made without a sandbox.
func (w *Worker) scratch() (string, error) {
	w.spoolMu.Lock()
	defer w.spoolMu.Unlock()
	if w.spool == nil {
		parent := w.o.Store.SnapshotDir()
		if err := sweepScratch(parent, store.SpoolPrefix, os.RemoveAll); err != nil {
			return "", err
		}
		d, err := newScratch(parent, store.SpoolPrefix)
		if err != nil {
			return "", err
		}
		w.spool = d
	}
	return w.spool.sub()
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SpoolPrefix begins the names of directories in SnapshotDir that are of use only to
// the process that made them. Every collection removes them while no process uses snapshots.
const SpoolPrefix = "spool-"

// snapshotTrash begins the names of snapshots that a collection has taken out.
const snapshotTrash = ".gc-"

// SnapshotDir is the directory of unpacked trees; worker/local owns what is in
// it, except names that begin with ".gc-". From this call to Close no collection removes snapshots.
func (s *Store) SnapshotDir() string {
	dir := s.path(snapshotsDir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snaps != nil || s.closed || s.readOnly {
		return dir
	}
	f, err := openLockFile(s.path(snapshotLock))
	if err != nil {
		return dir // the user's first write there says why
	}
	// A collection holds it for a few renames only.
	if lock(context.Background(), f, false) != nil {
		_ = f.Close()
		return dir
	}
	s.snaps = f
	return dir
}

// lockSnapshots keeps processes from using snapshots until the file is closed. It is nil when one uses some.
func (s *Store) lockSnapshots() (*os.File, error) {
	f, err := openLockFile(s.path(snapshotLock))
	if err != nil {
		return nil, storageError(s.path(snapshotLock), 0, err)
	}
	switch err := tryLock(f, true); {
	case errors.Is(err, errLocked):
		_ = f.Close()
		return nil, nil
	case err != nil:
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// takeSnapshots renames snapshots and cache mounts, so that nobody finds them: all of them, or those in gone and those
// that a process left behind. It returns the new names. The caller holds the snapshots' lock.
func (s *Store) takeSnapshots(all bool, gone map[string]CacheEntry, dryRun bool) (taken []string, err error) {
	entries, err := os.ReadDir(s.path(snapshotsDir))
	if err != nil {
		return nil, err
	}
	var errs []error
	take := func(from string) {
		if dryRun {
			taken = append(taken, from)
			return
		}
		// The same parent: a directory of another owner can be renamed there.
		to := filepath.Join(filepath.Dir(from), snapshotTrash+filepath.Base(from))
		if err := os.Rename(from, to); err != nil {
			errs = append(errs, err)
			return
		}
		taken = append(taken, to)
	}
	for _, e := range entries {
		from := s.path(snapshotsDir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), snapshotTrash):
			taken = append(taken, from)
		case all, strings.HasPrefix(e.Name(), SpoolPrefix):
			take(from)
		case e.IsDir():
			left, err := filepath.Glob(filepath.Join(from, snapshotTrash+"*"))
			taken, errs = append(taken, left...), append(errs, err)
		}
	}
	if all {
		return taken, errors.Join(errs...)
	}
	for path, e := range gone {
		if e.isTree() {
			take(path)
			if !dryRun {
				_ = os.Remove(path + UsedSuffix) // only says when path was used
			}
		}
	}
	return taken, errors.Join(errs...)
}

// removeTree is os.RemoveAll that also enters directories which nobody may.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		// The function sees a directory before it is read.
		if err == nil && e.IsDir() {
			_ = os.Chmod(p, dirMode)
		}
		return nil
	})
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("removing snapshot: %w", err)
	}
	return nil
}

// treeSize sums the sizes of files in bytes, as far as they can be seen.
func treeSize(path string) (n int64) {
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be seen is not counted
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}

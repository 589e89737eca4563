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

// takeSnapshots renames snapshots, so that nobody finds them, if no process uses
// any: all of them, or those that a process left behind. It returns the new names.
func (s *Store) takeSnapshots(all, dryRun bool) (taken []string, inUse bool, err error) {
	f, err := openLockFile(s.path(snapshotLock))
	if err != nil {
		return nil, false, storageError(s.path(snapshotLock), 0, err)
	}
	defer f.Close()
	switch err := tryLock(f, true); {
	case errors.Is(err, errLocked):
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	entries, err := os.ReadDir(s.path(snapshotsDir))
	if err != nil {
		return nil, false, err
	}
	var errs []error
	for _, e := range entries {
		from := s.path(snapshotsDir, e.Name())
		if !all && !strings.HasPrefix(e.Name(), SpoolPrefix) && !strings.HasPrefix(e.Name(), snapshotTrash) {
			continue
		}
		if dryRun || strings.HasPrefix(e.Name(), snapshotTrash) {
			taken = append(taken, from)
			continue
		}
		// The same parent: a directory of another owner can be renamed there.
		to := s.path(snapshotsDir, snapshotTrash+e.Name())
		if err := os.Rename(from, to); err != nil {
			errs = append(errs, err)
			continue
		}
		taken = append(taken, to)
	}
	return taken, false, errors.Join(errs...)
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

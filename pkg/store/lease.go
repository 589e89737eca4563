package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A lease is a file of digests, one a line, locked by the process that needs
// them. The lock dies with the process, so that a lease needs no clock, no
// process id and no clean-up.

// openLease makes this process's lease. s.mu is held.
func (s *Store) openLease() error {
	if s.lease != nil {
		return nil
	}
	f, err := createLocked(s.path(leasesDir), fmt.Sprintf("%d-*", os.Getpid()))
	if err != nil {
		return s.refuse(err)
	}
	s.lease = f
	return nil
}

// isLeased reports whether d needs no new lease.
func (s *Store) isLeased(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.leased[d]
	return ok
}

// take leases digests. The caller holds gc.lock. A reader takes what it can get.
func (s *Store) take(ds ...digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("store %s: %w", s.root, fs.ErrClosed)
	}
	if s.blind {
		return nil
	}
	var lines strings.Builder
	for _, d := range ds {
		if _, ok := s.leased[d]; !ok {
			lines.WriteString(string(d) + "\n")
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	if err := s.openLease(); err != nil {
		s.blind = s.readOnly
		return err
	}
	end, err := s.lease.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := s.lease.WriteString(lines.String()); err != nil {
		// No half line may stay before what is written later.
		_ = s.lease.Truncate(end)
		_, _ = s.lease.Seek(end, io.SeekStart)
		return storageError(s.lease.Name(), int64(lines.Len()), err)
	}
	for _, d := range ds {
		s.leased[d] = struct{}{}
	}
	return nil
}

// noteDirty remembers that d is used here and may not be durable yet.
func (s *Store) noteDirty(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty[d] = struct{}{}
}

// isAlive reports whether a process holds the lock of a lease or ingest file;
// when not, the file is returned open and locked by us, and the caller closes it.
func isAlive(path string) (alive bool, mine *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return false, nil, err
	}
	switch err := tryLock(f, true); {
	case errors.Is(err, errLocked):
		_ = f.Close()
		return true, nil, nil
	case err != nil:
		_ = f.Close()
		return false, nil, err
	}
	return false, f, nil
}

// leases returns what live processes lease, and the files of dead ones, locked:
// a process that has just made its lease and not locked it looks dead, and must
// find it either locked by us or gone. The caller holds gc.lock and closes them.
func (s *Store) leases() (live []digest.Digest, dead []*os.File, err error) {
	entries, err := os.ReadDir(s.path(leasesDir))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := s.path(leasesDir, e.Name())
		if !e.Type().IsRegular() {
			continue // not ours; Check names it
		}
		alive, mine, err := isAlive(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // ended just now
		case err != nil:
			return nil, dead, fmt.Errorf("reading leases: %w", err)
		case !alive:
			dead = append(dead, mine)
			continue
		}
		ds, err := readLease(path)
		if err != nil {
			return nil, dead, err
		}
		live = append(live, ds...)
	}
	return live, dead, nil
}

func readLease(path string) ([]digest.Digest, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a lease: %w", err)
	}
	defer f.Close()
	var ds []digest.Digest
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		d := digest.Digest(sc.Text())
		if err := checkDigest(d); err != nil {
			return nil, fmt.Errorf("lease %s is damaged (end the process that holds it): %w", filepath.Base(path), err)
		}
		ds = append(ds, d)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading lease %s: %w", filepath.Base(path), err)
	}
	return ds, nil
}

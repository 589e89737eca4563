// Package store is the content store on disk: verified blobs by digest, refs,
// leases, records, and their garbage collection (DESIGN.md section 6).
//
// It knows bytes, digests and the edges between OCI documents; it does not know
// what an image means. docs/adr/0003-store.md tells why it is as it is.
//
// # Invariants
//
//   - A blob is either absent or whole; a kill at any instant leaves nothing half written in view.
//   - Whoever reads a blob to EOF has verified it.
//   - Nothing that a ref, a lease or a record reaches is collected.
//   - A ref is written after everything it reaches is durable.
//   - What cannot be understood is never deleted for that reason by a collection.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Store is a directory of content, safe for concurrent use by goroutines and processes.
type Store struct {
	root     string
	readOnly bool
	gates    gates
	fsync    func(*os.File) error // (*os.File).Sync, but in tests of failing disks

	mu     sync.Mutex // guards the seven below
	closed bool
	lease  *os.File // made at the first lease if it could not be made by Open
	blind  bool     // this reader cannot write leases, or must not
	leased map[digest.Digest]struct{}
	dirty  map[digest.Digest]struct{} // leased here and not known to be durable
	fresh  map[digest.Digest]struct{} // put by this Store, which digested them
	snaps  *os.File                   // shared lock of snapshots/, held from the first SnapshotDir

	grown   atomic.Int64 // bytes of blobs and trees that came through this Store
	syncing sync.Mutex   // one Sync at a time: the second waits for what the first took
}

// Options tunes a store. The zero value is the recommended one.
type Options struct {
	// ReadOnly reads a store that must exist and may lie on a read-only file
	// system or belong to somebody else: what is read is verified all the same.
	ReadOnly bool
}

// Open opens the store at root, making it when it is missing. The lease file it
// takes protects what is put and looked at from collections; Close ends that, so a
// long-lived process opens the store anew for each task (about 0.1 ms).
func Open(ctx context.Context, root string, o Options) (*Store, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("store %q: %w", root, err)
	}
	s := &Store{
		root:     abs,
		readOnly: o.ReadOnly,
		fsync:    (*os.File).Sync,
		leased:   map[digest.Digest]struct{}{},
		dirty:    map[digest.Digest]struct{}{},
		fresh:    map[digest.Digest]struct{}{},
	}
	s.gates.dir = abs
	if o.ReadOnly {
		if err := s.checkLayout(); err != nil {
			return nil, err
		}
		// A lease of ours in another user's store would be in that user's way.
		if fi, err := os.Stat(s.root); err == nil {
			_, _, s.blind = foreignOwner(fi)
		}
		return s, nil
	}
	if err := s.start(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	if err := s.makeLayout(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.openLease()
	s.mu.Unlock()
	// A full disk must not keep a collection from being started.
	if err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	return s.recover(ctx)
}

// Close releases this process's leases. It does not sync.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.lease != nil {
		_ = os.Remove(s.lease.Name()) // a lease that stays behind is unlocked, thus dead
		_ = s.lease.Close()
	}
	if s.snaps != nil {
		_ = s.snaps.Close()
	}
	s.gates.close()
	return nil
}

// Root is the store's directory, absolute.
func (s *Store) Root() string { return s.root }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// writable is the first line of everything that changes the store.
func (s *Store) writable() error {
	if s.readOnly {
		return fmt.Errorf("store %s is open for reading only: %w", s.root, errors.ErrUnsupported)
	}
	return nil
}

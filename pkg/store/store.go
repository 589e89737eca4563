// Package store is the content store on disk: verified blobs by digest, refs,
// leases, records, and their garbage collection (DESIGN.md section 6).
//
// # Invariants
//
//   - A blob is either absent or whole; a kill at any instant leaves nothing half written in view.
//   - Whoever reads a blob to EOF has verified it.
//   - Nothing that a ref, a lease or a record reaches is collected.
package store

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The kinds of errors.
var (
	ErrNotFound = errors.New("not found in the store")
	ErrCorrupt  = errors.New("content does not match its digest")
	ErrNoSpace  = errors.New("no space left")
)

var errTODO = errors.New("store: not built yet")

// Store is a directory of content, safe for concurrent use by goroutines and processes.
type Store struct{ root string }

// Options tunes a store. The zero value is the recommended one.
type Options struct {
	ReadOnly bool
}

// Open opens the store at root, making it when it is missing, and takes the shared lock.
func Open(ctx context.Context, root string, o Options) (*Store, error) { return nil, errTODO }

// Close releases the lock and this process's leases.
func (s *Store) Close() error { return nil }

// Root is the store's directory, absolute.
func (s *Store) Root() string { return s.root }

// Put streams r into the store and returns what it became. It is atomic and
// idempotent: a crash leaves no partial blob, a repeat costs one hash. The blob
// is leased by this process until Close.
func (s *Store) Put(ctx context.Context, mediaType string, r io.Reader) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errTODO
}

// PutExpected streams r into the store and reports ErrCorrupt, keeping nothing,
// when size or digest differ from desc's.
func (s *Store) PutExpected(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	return errTODO
}

// Ingest is a blob being written. Exactly one of Commit and Abort ends it (Abort after Commit does nothing).
type Ingest struct{}

// Ingest starts a blob whose bytes come by Write.
func (s *Store) Ingest(ctx context.Context) (*Ingest, error) { return nil, errTODO }

// Write implements io.Writer and hashes on the way.
func (w *Ingest) Write(p []byte) (int, error) { return 0, errTODO }

// Commit makes the blob visible.
func (w *Ingest) Commit(ctx context.Context, mediaType string) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errTODO
}

// Abort drops the blob.
func (w *Ingest) Abort() {}

// Open returns the blob. Read reports ErrCorrupt in place of io.EOF if the bytes
// do not match desc: whoever reads to EOF has verified them. Size 0 or less in desc is not checked.
func (s *Store) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, errTODO
}

// ReaderAt is random access to a blob, unverified.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// OpenAt opens a blob for random access.
func (s *Store) OpenAt(d digest.Digest) (ReaderAt, error) { return nil, errTODO }

// Path is the blob's file, for passing it to another process as a descriptor.
func (s *Store) Path(d digest.Digest) string { return "" }

// Stat returns the blob's size; ErrNotFound when it is absent. It leases the blob to this process.
func (s *Store) Stat(d digest.Digest) (int64, error) { return 0, errTODO }

// Sync makes everything committed so far durable: the build's one sync point.
// SetRef calls it itself.
func (s *Store) Sync(ctx context.Context) error { return errTODO }

// Ref is a name in the store.
type Ref struct {
	Name string // "hello:1.0", "registry.example/app:v1"
	Desc ocispec.Descriptor
}

// SetRef points name at desc, durably, after syncing what it reaches; index.json is written anew.
func (s *Store) SetRef(ctx context.Context, name string, desc ocispec.Descriptor) error {
	return errTODO
}

// GetRef returns what name points at, or ErrNotFound.
func (s *Store) GetRef(name string) (ocispec.Descriptor, error) { return ocispec.Descriptor{}, errTODO }

// DeleteRef removes name, or reports ErrNotFound.
func (s *Store) DeleteRef(ctx context.Context, name string) error { return errTODO }

// Refs lists all refs by name.
func (s *Store) Refs() ([]Ref, error) { return nil, errTODO }

// Record is a small verified file beside the blobs: step cache records ("cache"),
// tables of contents ("toc"), compressed forms of layers ("compressed").
type Record struct {
	Data  []byte          // opaque; written and read whole
	Blobs []digest.Digest // what it needs to be of use: kept by gc, and a record whose blobs are gone is ErrNotFound
}

// PutRecord writes a record atomically. kind and key become file names: key may be a digest.
func (s *Store) PutRecord(kind, key string, r Record) error { return errTODO }

// GetRecord returns a record, or ErrNotFound: also when it is damaged or one of its blobs is gone.
func (s *Store) GetRecord(kind, key string) (Record, error) { return Record{}, errTODO }

// SnapshotDir is the directory of unpacked trees; worker/local owns what is in it.
func (s *Store) SnapshotDir() string { return "" }

// GCOptions tunes a collection. The zero value keeps the step cache.
type GCOptions struct {
	Cache  bool // drop cache, toc and compressed records first, and snapshots
	DryRun bool
}

// GCReport is what a collection removed.
type GCReport struct {
	Blobs, Records, Ingests, Snapshots int
	Bytes                              int64
}

// GC removes what nothing reaches. It waits for users of other processes (the exclusive lock) until ctx ends.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) { return GCReport{}, errTODO }

// CheckOptions tunes a check.
type CheckOptions struct {
	ReadData bool // hash every blob, not only its size and reachability
	Repair   bool // remove corrupt blobs and what needs them, rewrite index.json
}

// Finding is one thing wrong with a store.
type Finding struct {
	Object string // "blob sha256:...", "ref hello:1.0"
	Text   string
	Fixed  bool
}

// Check reports what is wrong: missing, truncated or corrupt content, dangling refs.
func (s *Store) Check(ctx context.Context, o CheckOptions) ([]Finding, error) { return nil, errTODO }

package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The kinds of [CacheEntry] that are no records.
const (
	KindSnapshot   = "snapshot"    // a layer unpacked on disk
	KindCacheMount = "cache-mount" // what steps keep between builds: type=cache
)

// Parts of the names in SnapshotDir, which holds directories of snapshots, SET/NAME, and of cache mounts, SET-mounts/NAME.
// The time of last use is the mtime of NAME, or of NAME.used where that is a step's to change.
const (
	mountsSuffix = "-mounts"
	// UsedSuffix is added to the name of a cache mount for the empty file whose mtime is its last use.
	UsedSuffix = ".used"
	// SizeFile is in the directory of a snapshot: its size in bytes, decimal.
	SizeFile = "size"
)

// CacheEntry is something that makes the next build faster and may be dropped.
type CacheEntry struct {
	Kind     string
	Key      string          // of a record, as its file is named; SET/NAME of a tree
	Size     int64           // bytes of its file or tree, without Blobs
	Blobs    []digest.Digest // what it keeps in the store beside that
	LastUsed time.Time

	path string
}

// Usage is what takes room in a store, in bytes. The classes do not overlap.
type Usage struct {
	Refs    int64 // blobs that refs or running processes need
	Cache   int64 // records, and blobs that only they need
	Trees   int64 // snapshots and cache mounts
	Garbage int64 // blobs that nothing needs
	Entries []CacheEntry
}

// Total is all of it.
func (u Usage) Total() int64 { return u.Refs + u.Cache + u.Trees + u.Garbage }

// Usage looks at everything in the store. Beside running builds it is a snapshot.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	sizes, err := s.blobSizes(ctx)
	if err != nil {
		return u, err
	}
	refs, _, err := s.readRefs()
	if err != nil {
		return u, err
	}
	leased, dead, err := s.leases()
	for _, f := range dead {
		_ = f.Close()
	}
	if err != nil {
		return u, err
	}
	entries, err := s.cacheEntries()
	if err != nil {
		return u, err
	}
	u.Entries = entries
	var roots []edge
	for _, r := range refs {
		roots = append(roots, edge{desc: r.Desc})
	}
	for _, d := range leased {
		roots = append(roots, edge{desc: ocispec.Descriptor{Digest: d}})
	}
	w := newWalker(s)
	count := func(roots []edge, into *int64) error {
		return w.walk(ctx, roots, func(e edge) error {
			*into += sizes[e.desc.Digest]
			delete(sizes, e.desc.Digest)
			return nil
		}, func(error) error { return nil })
	}
	if err := count(roots, &u.Refs); err != nil {
		return u, err
	}
	roots = nil
	for _, e := range entries {
		if e.isTree() {
			u.Trees += e.Size
			continue
		}
		u.Cache += e.Size
		for _, d := range e.Blobs {
			roots = append(roots, edge{desc: ocispec.Descriptor{Digest: d}})
		}
	}
	if err := count(roots, &u.Cache); err != nil {
		return u, err
	}
	for _, n := range sizes {
		u.Garbage += n
	}
	return u, nil
}

// Size is the size of a blob in bytes, 0 when it is not there. Unlike Stat it takes no lease.
func (s *Store) Size(d digest.Digest) int64 {
	if fi, err := os.Lstat(s.Path(d)); err == nil {
		return fi.Size()
	}
	return 0
}

// isTree tells trees from records.
func (e CacheEntry) isTree() bool { return e.Kind == KindSnapshot || e.Kind == KindCacheMount }

// blobSizes gives the size of every blob.
func (s *Store) blobSizes(ctx context.Context) (map[digest.Digest]int64, error) {
	sizes := map[digest.Digest]int64{}
	err := s.eachBlob(func(d digest.Digest, fi fs.FileInfo) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		sizes[d] = fi.Size()
		return nil
	})
	return sizes, err
}

// cacheEntries lists the cache, the least recently used first. Damaged records are left to a collection.
func (s *Store) cacheEntries() ([]CacheEntry, error) {
	var entries []CacheEntry
	err := s.eachRecord(func(path string, r Record, err error) error {
		if _, isOrigin := originOf(path); isOrigin || err != nil {
			return nil //nolint:nilerr // see above
		}
		fi, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		key := strings.TrimSuffix(filepath.Base(path), recordSuffix)
		entries = append(entries, CacheEntry{
			Kind: filepath.Base(filepath.Dir(path)), Key: key, Size: fi.Size(), Blobs: r.Blobs, LastUsed: fi.ModTime(), path: path,
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	trees, err := s.trees()
	if err != nil {
		return nil, err
	}
	entries = append(entries, trees...)
	slices.SortFunc(entries, func(a, b CacheEntry) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	return entries, nil
}

// trees lists snapshots and cache mounts.
func (s *Store) trees() ([]CacheEntry, error) {
	sets, err := os.ReadDir(s.path(snapshotsDir))
	if err != nil {
		return nil, err
	}
	var out []CacheEntry
	for _, set := range sets {
		if !set.IsDir() || strings.HasPrefix(set.Name(), snapshotTrash) || strings.HasPrefix(set.Name(), SpoolPrefix) {
			continue
		}
		kind := KindSnapshot
		if strings.HasSuffix(set.Name(), mountsSuffix) {
			kind = KindCacheMount
		}
		names, err := os.ReadDir(s.path(snapshotsDir, set.Name()))
		if err != nil {
			return nil, err
		}
		for _, e := range names {
			if !e.IsDir() || strings.HasPrefix(e.Name(), "tmp-") || strings.HasPrefix(e.Name(), snapshotTrash) {
				continue
			}
			path := s.path(snapshotsDir, set.Name(), e.Name())
			out = append(out, CacheEntry{
				Kind: kind, Key: set.Name() + "/" + e.Name(), Size: snapshotSize(path), LastUsed: treeUsed(path), path: path,
			})
		}
	}
	return out, nil
}

// snapshotSize reads the size that was written when a snapshot was made; a tree without one is looked through.
func snapshotSize(path string) int64 {
	text, err := os.ReadFile(filepath.Join(path, SizeFile))
	if err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return treeSize(path)
}

// treeUsed is when a tree was used last.
func treeUsed(path string) time.Time {
	for _, p := range []string{path + UsedSuffix, path} {
		if fi, err := os.Stat(p); err == nil {
			return fi.ModTime()
		}
	}
	return time.Time{}
}

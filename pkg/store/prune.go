package store

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// limits reports whether the cache is to be made smaller, not dropped.
func (o GCOptions) limits() bool { return o.KeepStorage > 0 || !o.UnusedSince.IsZero() }

// choose decides which entries of the cache go, the least recently used first: those unused since UnusedSince, then as many
// as it takes to bring the store below KeepStorage. pinned is what refs and leases reach.
func (c *collection) choose(ctx context.Context, pinned map[digest.Digest]bool) (gone map[string]CacheEntry, err error) {
	gone = map[string]CacheEntry{}
	if !c.o.limits() {
		return gone, nil
	}
	entries, err := c.s.cacheEntries()
	if err != nil {
		return nil, err
	}
	sizes, err := c.s.blobSizes(ctx)
	if err != nil {
		return nil, err
	}
	users := map[digest.Digest]int{}
	var total int64
	for d := range pinned {
		total += sizes[d]
	}
	for _, e := range entries {
		total += e.Size
		for _, d := range e.Blobs {
			if users[d]++; users[d] == 1 && !pinned[d] {
				total += sizes[d]
			}
		}
	}
	for _, e := range entries {
		old := !c.o.UnusedSince.IsZero() && e.LastUsed.Before(c.o.UnusedSince)
		big := c.o.KeepStorage > 0 && total > c.o.KeepStorage
		if !old && !big || e.isTree() && !c.trees {
			continue
		}
		gone[e.path] = e
		total -= e.Size
		for _, d := range e.Blobs {
			if users[d]--; users[d] == 0 && !pinned[d] {
				total -= sizes[d]
			}
		}
	}
	return gone, nil
}

// Touch marks a tree in SnapshotDir as used now: path is that of a snapshot, or of a cache mount's UsedSuffix file. It is
// best effort, because it decides only what a prune takes first.
func Touch(path string) { touch(path) }

// Trim makes the cache smaller until the store takes at most keep bytes, the least recently used first; refs, drafts and
// what runs stay. grown is what the task before it added ([Store.Grown]): most calls need no more than that to know that
// the store is small enough, the others look through it.
func (s *Store) Trim(ctx context.Context, keep, grown int64, remove func(path string) error) (GCReport, error) {
	if keep <= 0 || s.surelyBelow(keep, grown) {
		return GCReport{}, nil
	}
	total, err := s.measure(ctx)
	if err != nil {
		return GCReport{}, fmt.Errorf("looking at the size of the store: %w", err)
	}
	if total <= keep {
		return GCReport{}, nil
	}
	r, err := s.GC(ctx, GCOptions{KeepStorage: keep, RemoveTree: remove})
	if err == nil {
		_, err = s.measure(ctx)
	}
	return r, err
}

// tenth is the share of its file system that a store takes by default.
const tenth = 10

// DefaultKeepStorage is a tenth of the file system that dir is on, in bytes; 0 when that cannot be found out.
func DefaultKeepStorage(dir string) int64 {
	for {
		if n, ok := fileSystemSize(dir); ok {
			return n / tenth
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return 0
		}
		dir = parent // the store is not made yet
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// GCOptions tunes a collection. The zero value keeps the step cache.
type GCOptions struct {
	Cache  bool // drop cache, toc and compressed records first, and snapshots
	DryRun bool // change nothing, report what would be removed

	// KeepStorage and UnusedSince make the cache smaller instead of dropping it: records, snapshots and cache mounts that
	// were not used since that time go, then the least recently used until the store takes at most so many bytes.
	// Zero values are no limits.
	KeepStorage int64
	UnusedSince time.Time

	// RemoveTree removes a snapshot; nil removes what this user may. A caller that
	// can act as the owners of the files in it (their user namespace) passes its own.
	RemoveTree func(path string) error
}

// GCReport is what a collection removed.
type GCReport struct {
	Blobs, Records, Ingests, Snapshots int
	Bytes                              int64

	SnapshotsInUse bool // snapshots were to go, but a process uses some: they were left
}

// GC removes what nothing reaches. Builds may run beside it: it holds them up
// only while it works, and what they lease stays. It waits for its turn until ctx ends.
// When a ref or a document cannot be understood nothing is removed.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	var r GCReport
	if err := s.writable(); err != nil {
		return r, err
	}
	leave, err := s.collecting(ctx)
	if err != nil {
		return r, fmt.Errorf("collecting: %w", err)
	}
	c := &collection{s: s, o: o, report: &r}
	err = c.run(ctx)
	leave()
	if err != nil {
		return r, fmt.Errorf("collecting: %w", err)
	}
	if err := c.removeSnapshots(ctx); err != nil {
		return r, fmt.Errorf("collecting: %w", err)
	}
	return r, nil
}

type collection struct {
	s         *Store
	o         GCOptions
	report    *GCReport
	trees     bool // no process uses snapshots or cache mounts: they may go
	snapshots []string
	errs      []error
}

// run works while gc.lock is held: first it finds out everything, then it removes.
func (c *collection) run(ctx context.Context) error {
	refs, bad, err := c.s.readRefs()
	if err != nil {
		return err
	}
	for _, err := range bad {
		return fmt.Errorf("%w (nothing was removed: run `manifestctl store check --repair` first)", err)
	}
	leased, dead, err := c.s.leases()
	defer func() {
		for _, f := range dead {
			_ = f.Close()
		}
	}()
	if err != nil {
		return err
	}
	var roots []edge
	for _, ref := range refs {
		roots = append(roots, edge{desc: ref.Desc})
	}
	for _, d := range leased {
		roots = append(roots, edge{desc: ocispec.Descriptor{Digest: d}})
	}
	locked, err := c.s.lockSnapshots()
	if err != nil {
		return err
	}
	if locked != nil {
		defer locked.Close()
	}
	c.trees = locked != nil
	odd := func(err error) error {
		if errors.Is(err, errOdd) {
			return nil // and its edges are all followed
		}
		return fmt.Errorf("%w (nothing was removed: run `manifestctl store check --repair` first)", err)
	}
	w := newWalker(c.s)
	pinned := map[digest.Digest]bool{}
	if c.o.limits() {
		err := w.walk(ctx, roots, func(e edge) error {
			pinned[e.desc.Digest] = true
			return nil
		}, odd)
		if err != nil {
			return err
		}
	}
	gone, err := c.choose(ctx, pinned)
	if err != nil {
		return err
	}
	records, origins, kept, err := c.records(gone)
	if err != nil {
		return err
	}
	for _, d := range kept {
		roots = append(roots, edge{desc: ocispec.Descriptor{Digest: d}})
	}
	reached := map[digest.Digest]bool{}
	err = w.walk(ctx, roots, func(e edge) error {
		reached[e.desc.Digest] = true
		return nil
	}, odd)
	if err != nil {
		return err
	}
	for _, path := range records {
		c.remove(path, &c.report.Records)
	}
	for path, d := range origins {
		if !reached[d] {
			c.remove(path, &c.report.Records)
		}
	}
	if c.trees {
		taken, err := c.s.takeSnapshots(c.o.Cache, gone, c.o.DryRun)
		c.snapshots = taken
		c.errs = append(c.errs, err)
	}
	c.report.SnapshotsInUse = !c.trees && (c.o.Cache || c.o.limits())
	err = c.s.eachBlob(func(d digest.Digest, fi fs.FileInfo) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !reached[d] && fi.Mode().IsRegular() {
			c.remove(c.s.Path(d), &c.report.Blobs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.leftovers(); err != nil {
		return err
	}
	if !c.o.DryRun {
		for _, f := range dead {
			_ = os.Remove(f.Name())
		}
	}
	return errors.Join(c.errs...)
}

// records returns the files of records to remove, those in gone among them, the origins, which go with their manifests, and
// the blobs that the others need.
func (c *collection) records(gone map[string]CacheEntry) (remove []string, origins map[string]digest.Digest, kept []digest.Digest, err error) {
	origins = map[string]digest.Digest{}
	err = c.s.eachRecord(func(path string, r Record, err error) error {
		d, isOrigin := originOf(path)
		switch {
		case isOrigin && err == nil:
			origins[path] = d
			return nil
		case errors.Is(err, ErrCorrupt), (c.o.Cache || isIn(gone, path)) && err == nil:
			remove = append(remove, path)
			return nil
		case err != nil:
			return fmt.Errorf("record %s: %w", path, err)
		}
		for _, d := range r.Blobs {
			if fi, err := os.Lstat(c.s.Path(d)); err != nil || !plausible(d, fi) {
				remove = append(remove, path)
				return nil
			}
		}
		kept = append(kept, r.Blobs...)
		return nil
	})
	return remove, origins, kept, err
}

func isIn(m map[string]CacheEntry, path string) bool {
	_, ok := m[path]
	return ok
}

// leftovers removes what killed processes left and what readers set aside.
func (c *collection) leftovers() error {
	entries, err := os.ReadDir(c.s.path(ingestDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue // not ours; Check names it
		}
		path := c.s.path(ingestDir, e.Name())
		alive, mine, err := isAlive(path)
		if err != nil || alive {
			continue // committed just now, or in use
		}
		c.remove(path, &c.report.Ingests)
		_ = mine.Close()
	}
	tmp, err := c.s.tempFiles()
	if err != nil {
		return err
	}
	for _, path := range tmp {
		c.remove(path, &c.report.Ingests)
	}
	damaged, err := os.ReadDir(c.s.path(damagedDir))
	if err != nil {
		return err
	}
	for _, e := range damaged {
		path := c.s.path(damagedDir, e.Name())
		c.report.Blobs++
		c.report.Bytes += treeSize(path)
		if !c.o.DryRun {
			c.errs = append(c.errs, removeTree(path))
		}
	}
	return nil
}

// tempFiles lists what was to become something by rename. They are written by
// holders of gc.lock, so that under the exclusive lock nobody needs them.
func (s *Store) tempFiles() ([]string, error) {
	dirs := []string{"", refsDir}
	kinds, err := s.kinds()
	if err != nil {
		return nil, err
	}
	dirs = append(dirs, kinds...)
	algos, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return nil, err
	}
	for _, a := range algos {
		if a.IsDir() {
			dirs = append(dirs, filepath.Join(blobsDir, a.Name()))
		}
	}
	var paths []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tmpPrefix) && e.Type().IsRegular() {
				paths = append(paths, s.path(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

// remove removes a file and counts it.
func (c *collection) remove(path string, count *int) {
	fi, err := os.Lstat(path)
	if err == nil && !c.o.DryRun {
		err = os.Remove(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		c.errs = append(c.errs, err)
	default:
		*count++
		c.report.Bytes += fi.Size()
	}
}

// removeSnapshots takes long and needs no lock: nobody finds them any more.
func (c *collection) removeSnapshots(ctx context.Context) error {
	remove := c.o.RemoveTree
	if remove == nil {
		remove = removeTree
	}
	var errs []error
	for _, path := range c.snapshots {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		size := treeSize(path)
		if !c.o.DryRun {
			if err := remove(path); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		c.report.Snapshots++
		c.report.Bytes += size
	}
	return errors.Join(errs...)
}

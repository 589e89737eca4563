package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// GCOptions tunes a collection. The zero value keeps the step cache.
type GCOptions struct {
	Cache  bool // drop cache, toc and compressed records first, and snapshots
	DryRun bool // change nothing, report what would be removed

	// RemoveTree removes a snapshot; nil removes what this user may. A caller that
	// can act as the owners of the files in it (their user namespace) passes its own.
	RemoveTree func(path string) error
}

// GCReport is what a collection removed.
type GCReport struct {
	Blobs, Records, Ingests, Snapshots int
	Bytes                              int64

	SnapshotsInUse bool // Cache was asked for, but a process uses snapshots: they were left
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
	records, origins, kept, err := c.records()
	if err != nil {
		return err
	}
	for _, d := range kept {
		roots = append(roots, edge{desc: ocispec.Descriptor{Digest: d}})
	}
	reached := map[digest.Digest]bool{}
	err = newWalker(c.s).walk(ctx, roots, func(e edge) error {
		reached[e.desc.Digest] = true
		return nil
	}, func(err error) error {
		if errors.Is(err, errOdd) {
			return nil // and its edges are all followed
		}
		return fmt.Errorf("%w (nothing was removed: run `manifestctl store check --repair` first)", err)
	})
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
	taken, inUse, err := c.s.takeSnapshots(c.o.Cache, c.o.DryRun)
	c.snapshots, c.report.SnapshotsInUse = taken, inUse && c.o.Cache
	c.errs = append(c.errs, err)
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

// records returns the files of records to remove, the origins, which go with their manifests, and the blobs that the others need.
func (c *collection) records() (remove []string, origins map[string]digest.Digest, kept []digest.Digest, err error) {
	origins = map[string]digest.Digest{}
	err = c.s.eachRecord(func(path string, r Record, err error) error {
		d, isOrigin := originOf(path)
		switch {
		case isOrigin && err == nil:
			origins[path] = d
			return nil
		case errors.Is(err, ErrCorrupt), c.o.Cache && err == nil:
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

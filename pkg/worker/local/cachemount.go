package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// maxPrivate bounds the copies of a private cache.
const maxPrivate = 1000

// lockRetry is how often a lock that another process holds is tried again.
const lockRetry = 20 * time.Millisecond

// cacheDir returns the directory of a cache mount. A locked one waits for its other users, a private one is a copy
// that nobody else uses now.
func (s *snapshots) cacheDir(ctx context.Context, m graph.Mount, inputs []solve.Result) (dir string, unlock func(), err error) {
	base := filepath.Join(s.mounts, digest.FromString(m.ID).Encoded()[:32])
	none := func() {}
	switch m.Sharing {
	case "", "shared":
		return base, none, s.makeCache(ctx, base, m, inputs)
	case "locked":
		lock := flock.New(base + ".lock")
		if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
			return "", nil, fmt.Errorf("waiting for the cache %q: %w", m.ID, err)
		}
		unlock := func() { _ = lock.Unlock() }
		if err := s.makeCache(ctx, base, m, inputs); err != nil {
			unlock()
			return "", nil, err
		}
		return base, unlock, nil
	case "private":
		return s.privateCache(ctx, base, m, inputs)
	}
	return "", nil, fmt.Errorf("cache %q: unknown sharing %q", m.ID, m.Sharing)
}

func (s *snapshots) privateCache(ctx context.Context, base string, m graph.Mount, inputs []solve.Result) (string, func(), error) {
	for i := range maxPrivate {
		dir := base + "-" + strconv.Itoa(i)
		lock := flock.New(dir + ".lock")
		ok, err := lock.TryLock()
		if err != nil {
			return "", nil, fmt.Errorf("locking the cache %q: %w", m.ID, err)
		}
		if !ok {
			continue
		}
		unlock := func() { _ = lock.Unlock() }
		if err := s.makeCache(ctx, dir, m, inputs); err != nil {
			unlock()
			return "", nil, err
		}
		return dir, unlock, nil
	}
	return "", nil, fmt.Errorf("cache %q: all of its %d private copies are in use", m.ID, maxPrivate)
}

// makeCache makes a cache's directory if it is not there, with what its mount says it begins with.
func (s *snapshots) makeCache(ctx context.Context, dir string, m graph.Mount, inputs []solve.Result) error {
	if err := os.WriteFile(dir+store.UsedSuffix, nil, 0o644); err != nil { // the directory itself may be a step's
		return fmt.Errorf("making the cache %q: %w", m.ID, err)
	}
	store.Touch(dir + store.UsedSuffix)
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	tmp, err := s.scratch()
	if err != nil {
		return err
	}
	tree := filepath.Join(tmp, "cache")
	mode := os.FileMode(0o755)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := os.Mkdir(tree, mode); err != nil {
		return fmt.Errorf("making the cache %q: %w", m.ID, err)
	}
	if m.Input == 0 || m.Mode != nil {
		if err := os.Chmod(tree, mode); err != nil { // whatever the umask
			return fmt.Errorf("making the cache %q: %w", m.ID, err)
		}
	}
	if m.Input > 0 {
		if err := s.seed(ctx, tree, m, inputs[m.Input]); err != nil {
			return fmt.Errorf("filling the cache %q from %s: %w", m.ID, m.Source, err)
		}
	}
	err = os.Rename(tree, dir)
	if err == nil || errors.Is(err, os.ErrExist) || errors.Is(err, errNotEmpty) { // another build was faster
		return nil
	}
	return fmt.Errorf("making the cache %q: %w", m.ID, err)
}

// seed unpacks what is at a mount's source into an empty directory.
func (s *snapshots) seed(ctx context.Context, dir string, m graph.Mount, from solve.Result) (err error) {
	view, err := s.worker.View(ctx, from.Layers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	filled, err := s.worker.change(ctx, solve.Result{}, time.Unix(0, 0), func(b *layer.Builder, _ *layer.View) error {
		return copier{b: b, from: view}.tree(ctx, m.Source, "/")
	})
	if err != nil {
		return err
	}
	tar, err := os.Open(s.worker.o.Store.Path(filled.Layers[0].DiffID))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tar.Close()) }()
	return s.pool.Unpack(ctx, dir, tar, layer.Limits{})
}

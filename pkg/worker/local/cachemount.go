package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	base := s.cacheBase(m.ID)
	sharing := m.Sharing
	if sharing != "private" && s.pool.Whole() {
		sharing = "locked" // it is moved into the one tree that uses it
	}
	switch sharing {
	case "", "shared":
		unlock, err := s.makeCache(ctx, base, m, inputs)
		return base, unlock, err
	case "locked":
		lock := flock.New(base + ".lock")
		if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
			return "", nil, fmt.Errorf("waiting for the cache %q: %w", m.ID, err)
		}
		done, err := s.makeCache(ctx, base, m, inputs)
		if err != nil {
			_ = lock.Unlock()
			return "", nil, err
		}
		return base, func() { done(); _ = lock.Unlock() }, nil
	case "private":
		return s.privateCache(ctx, base, m, inputs)
	}
	return "", nil, fmt.Errorf("cache %q: unknown sharing %q", m.ID, m.Sharing)
}

// What a cache is called after it was dropped: the name in the file of the first suffix, behind the second.
const (
	generationSuffix = ".now"
	generationMark   = "~"
)

// cacheName is the name of a cache's directory, before it was dropped once.
func (s *snapshots) cacheName(id string) string {
	return filepath.Join(s.mounts, digest.FromString(id).Encoded()[:32])
}

// cacheBase is the directory of a cache now.
func (s *snapshots) cacheBase(id string) string {
	name := s.cacheName(id)
	if generation, err := os.ReadFile(name + generationSuffix); err == nil {
		return name + generationMark + string(generation)
	}
	return name
}

// DropCaches makes the caches of these ids empty for the steps to come, as --no-cache does in BuildKit. Steps of other builds
// that use one now keep what they have, and nobody finds it after them.
func (w *Worker) DropCaches(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := w.sandbox(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		if err := w.trees.dropCache(ctx, id); err != nil {
			return fmt.Errorf("dropping the cache %q: %w", id, err)
		}
	}
	return nil
}

func (s *snapshots) dropCache(ctx context.Context, id string) error {
	name := s.cacheName(id)
	old, err := filepath.Glob(name + "*")
	if err != nil {
		return err
	}
	old = slices.DeleteFunc(old, func(p string) bool { return !isDir(p) })
	if len(old) == 0 {
		return nil
	}
	f, err := os.CreateTemp(s.mounts, "now-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(rand.Text()[:16])
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name+generationSuffix)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	for _, dir := range old {
		used := flock.New(dir + store.UsedSuffix)
		if ok, err := used.TryLock(); err != nil || !ok {
			continue // a step of another build has it; a prune takes it later
		}
		err := s.pool.Remove(ctx, dir)
		if err := errors.Join(err, os.Remove(dir+store.UsedSuffix), used.Unlock()); err != nil {
			return err
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
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
		done, err := s.makeCache(ctx, dir, m, inputs)
		if err != nil {
			_ = lock.Unlock()
			return "", nil, err
		}
		return dir, func() { done(); _ = lock.Unlock() }, nil
	}
	return "", nil, fmt.Errorf("cache %q: all of its %d private copies are in use", m.ID, maxPrivate)
}

// makeCache makes a cache's directory if it is not there, with what its mount says it begins with. It is not dropped before
// done was called.
func (s *snapshots) makeCache(ctx context.Context, dir string, m graph.Mount, inputs []solve.Result) (done func(), err error) {
	used := flock.New(dir + store.UsedSuffix) // the directory itself may be a step's
	if _, err := used.TryRLockContext(ctx, lockRetry); err != nil {
		return nil, fmt.Errorf("making the cache %q: %w", m.ID, err)
	}
	store.Touch(dir + store.UsedSuffix)
	if err := s.fillCache(ctx, dir, m, inputs); err != nil {
		return nil, errors.Join(err, used.Unlock())
	}
	return func() { _ = used.Unlock() }, nil
}

func (s *snapshots) fillCache(ctx context.Context, dir string, m graph.Mount, inputs []solve.Result) (err error) {
	if isDir(dir) {
		return nil
	}
	// Beside its place: to move a directory to another needs the right to write into it, and this one may be a step's user's.
	made, err := newScratch(s.mounts, tmpPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, made.remove(s.removeTree)) }()
	mode := os.FileMode(0o755)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := os.Chmod(made.path, mode); err != nil { // whatever the umask
		return fmt.Errorf("making the cache %q: %w", m.ID, err)
	}
	if m.Input > 0 {
		if err := s.seed(ctx, made.path, m, inputs[m.Input]); err != nil {
			return fmt.Errorf("filling the cache %q from %s: %w", m.ID, m.Source, err)
		}
	}
	err = os.Rename(made.path, dir)
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
	filled, err := s.worker.change(notPressing(ctx), solve.Result{}, time.Unix(0, 0), func(b *layer.Builder, _ *layer.View) error {
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

package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// mounts adds op's mounts to step and returns what gives back the locks they hold.
func (w *Worker) mounts(ctx context.Context, step *sandbox.Step, op graph.Exec, inputs []solve.Result) (_ func(), err error) {
	var held []func()
	release := func() {
		for _, f := range held {
			f()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	for _, m := range op.Mounts {
		out := sandbox.Mount{Target: m.Target, UID: m.UID, GID: m.GID, Size: m.Size}
		if m.Mode != nil {
			out.Mode = *m.Mode
		}
		switch m.Type {
		case graph.MountBind:
			out.Kind, out.Sub, out.ReadOnly = sandbox.MountOverlay, m.Source, !m.Writable
			if out.Lowers, err = w.trees.lowers(ctx, inputs[m.Input].Layers); err != nil {
				return nil, err
			}
		case graph.MountTmpfs:
			out.Kind = sandbox.MountTmpfs
		case graph.MountCache:
			dir, unlock, err := w.trees.cacheDir(ctx, m)
			if err != nil {
				return nil, err
			}
			held = append(held, unlock)
			out.Kind, out.Source = sandbox.MountDir, dir
		case graph.MountSecret:
			data, ok, err := w.secret(m)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if m.Env != "" {
				step.Env = mergeEnv(step.Env, []string{m.Env + "=" + string(data)})
			}
			if m.Target == "" {
				continue
			}
			out.Kind, out.Data, out.ReadOnly = sandbox.MountData, data, true
			if m.Mode == nil {
				out.Mode = 0o400
			}
		default:
			return nil, fmt.Errorf("mount at %s: unknown type %q", m.Target, m.Type)
		}
		step.Mounts = append(step.Mounts, out)
	}
	return release, nil
}

// secret returns a secret's bytes; ok is false when it was not given and need not be.
func (w *Worker) secret(m graph.Mount) (data []byte, ok bool, err error) {
	if w.o.Secret != nil {
		if data, ok, err = w.o.Secret(m.ID); err != nil {
			return nil, false, fmt.Errorf("secret %q: %w", m.ID, err)
		}
	}
	if !ok && m.Required {
		return nil, false, fmt.Errorf("%w %q: give it with --secret id=%s,src=FILE", ErrSecret, m.ID, m.ID)
	}
	return data, ok, nil
}

// maxPrivate bounds the copies of a private cache.
const maxPrivate = 1000

// cacheDir returns the directory of a cache mount. A locked one waits for its other users, a private one is a copy
// that nobody else uses now.
func (s *snapshots) cacheDir(ctx context.Context, m graph.Mount) (dir string, unlock func(), err error) {
	base := filepath.Join(s.mounts, digest.FromString(m.ID).Encoded()[:32])
	none := func() {}
	switch m.Sharing {
	case "", "shared":
		return base, none, s.makeCache(base, m)
	case "locked":
		if err := s.makeCache(base, m); err != nil {
			return "", nil, err
		}
		lock := flock.New(base + ".lock")
		if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
			return "", nil, fmt.Errorf("waiting for the cache %q: %w", m.ID, err)
		}
		return base, func() { _ = lock.Unlock() }, nil
	case "private":
		for i := range maxPrivate {
			dir := base + "-" + strconv.Itoa(i)
			lock := flock.New(dir + ".lock")
			ok, err := lock.TryLock()
			if err != nil {
				return "", nil, fmt.Errorf("locking the cache %q: %w", m.ID, err)
			}
			if ok {
				return dir, func() { _ = lock.Unlock() }, s.makeCache(dir, m)
			}
		}
		return "", nil, fmt.Errorf("cache %q: all of its %d private copies are in use", m.ID, maxPrivate)
	}
	return "", nil, fmt.Errorf("cache %q: unknown sharing %q", m.ID, m.Sharing)
}

func (s *snapshots) makeCache(dir string, m graph.Mount) error {
	mode := os.FileMode(0o755)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	err := os.Mkdir(dir, mode)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making the cache %q: %w", m.ID, err)
	}
	return os.Chmod(dir, mode) // whatever the umask
}

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// snapshots are layers unpacked as overlay lowers. A snapshot is SnapshotDir/SET/CHAIN/fs: SET is the ownership
// mode with its id map, and the boot (unpacked files are not synced, so they are not trusted after a power loss);
// CHAIN is the chain of layers up to and with this one, because parents that a layer does not name are taken from below.
type snapshots struct {
	worker *Worker
	pool   *sandbox.Pool
	set    string // directory of this mode and boot
	mounts string // directory of cache mounts of this mode, of any boot
	tmp    *scratchDir
	swept  chan error // of the sweep that runs beside the build

	mu    sync.Mutex // guards ready
	ready map[digest.Digest]*snapshot
}

// snapshot is one that this process needs; done when once ran.
type snapshot struct {
	once sync.Once
	err  error
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func (s *snapshots) open(pool *sandbox.Pool) error {
	s.pool = pool
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		boot = []byte("unknown")
	}
	dir, mode := s.worker.o.Store.SnapshotDir(), digest.FromString(pool.SnapshotKey()).Encoded()[:16]
	boot = []byte(digest.FromBytes(boot).Encoded()[:8])
	s.set = filepath.Join(cmp.Or(pool.TreesDir(), dir), mode+bootMark+string(boot))
	s.mounts = filepath.Join(dir, mode+"-mounts")
	for _, d := range []string{s.set, s.mounts} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("making the directory of snapshots: %w", err)
		}
	}
	spread(s.set)
	if s.tmp, err = newScratch(s.set, tmpPrefix); err != nil {
		return err
	}
	s.swept = make(chan error, 1)
	go func() {
		s.swept <- errors.Join(sweepScratch(s.set, tmpPrefix, s.removeTree), sweepScratch(s.mounts, tmpPrefix, s.removeTree), s.sweepBoots(mode))
	}()
	return nil
}

// bootMark is between the mode and the boot in the name of a set.
const bootMark = "-boot-"

const tmpPrefix = "tmp-"

// removeTree removes a tree whose files may belong to subordinate ids.
func (s *snapshots) removeTree(dir string) error { return s.pool.Remove(context.Background(), dir) }

// sweepBoots removes what was unpacked before this boot.
func (s *snapshots) sweepBoots(mode string) error {
	sets, err := filepath.Glob(filepath.Join(filepath.Dir(s.set), mode+bootMark+"*"))
	if err != nil {
		return fmt.Errorf("looking for snapshots of other boots: %w", err)
	}
	for _, set := range sets {
		if set == s.set {
			continue
		}
		if err := s.removeTree(set); err != nil {
			return fmt.Errorf("removing snapshots of another boot: %w", err)
		}
	}
	return nil
}

func (s *snapshots) close() error {
	if s.tmp == nil {
		return nil
	}
	return errors.Join(<-s.swept, s.tmp.remove(s.removeTree))
}

// scratch makes a directory that goes when the worker is closed, on the file system of the snapshots.
func (s *snapshots) scratch() (string, error) { return s.tmp.sub() }

// chainIDs identify the chains of layers: the first, the first two, and so on (as the ChainID of the OCI image-spec does).
func chainIDs(layers []solve.Layer) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	var parent digest.Digest
	for i, l := range layers {
		parent = digest.FromString(parent.String() + " " + l.DiffID.String())
		ids[i] = parent
	}
	return ids
}

func (s *snapshots) path(chain digest.Digest) string { return filepath.Join(s.set, chain.Encoded()) }

// lowers unpacks what is not yet unpacked of layers and returns the directories for an overlay, top first.
func (s *snapshots) lowers(ctx context.Context, layers []solve.Layer) ([]string, error) {
	chains := chainIDs(layers)
	dirs := make([]string, 0, len(layers))
	for _, c := range slices.Backward(chains) {
		dirs = append(dirs, filepath.Join(s.path(c), "fs"))
	}
	var packed []solve.Layer
	for i, l := range layers {
		if _, err := os.Lstat(s.path(chains[i])); err != nil {
			packed = append(packed, l)
		}
	}
	if err := s.worker.needAll(ctx, packed); err != nil {
		return nil, err
	}
	for i, c := range chains {
		if err := s.ensure(ctx, layers[:i+1], c); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// ensure unpacks the top layer of layers, unless that was done, here or by another process.
func (s *snapshots) ensure(ctx context.Context, layers []solve.Layer, chain digest.Digest) error {
	s.mu.Lock()
	snap, ok := s.ready[chain]
	if !ok {
		snap = &snapshot{}
		s.ready[chain] = snap
	}
	s.mu.Unlock()
	snap.once.Do(func() {
		if _, err := os.Stat(s.path(chain)); err == nil {
			store.Touch(s.path(chain))
			return
		}
		snap.err = s.unpack(ctx, layers, chain)
	})
	return snap.err
}

func (s *snapshots) unpack(ctx context.Context, layers []solve.Layer, chain digest.Digest) (err error) {
	top := layers[len(layers)-1]
	dir, err := s.scratch()
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return fmt.Errorf("making a snapshot: %w", err)
	}
	err = s.lay(ctx, tree, func(out io.Writer) error { return s.worker.completeTar(ctx, layers, out) })
	if err != nil {
		return fmt.Errorf("unpacking layer %s: %w", top.DiffID, err)
	}
	return s.publish(dir, chain, top.Size)
}

// publish moves a scratch directory with a finished tree to its place. Another process may have been faster.
// size is the tree's in bytes, 0 when it is not known.
func (s *snapshots) publish(dir string, chain digest.Digest, size int64) error {
	if size > 0 {
		if err := os.WriteFile(filepath.Join(dir, store.SizeFile), fmt.Appendln(nil, size), 0o644); err != nil {
			return fmt.Errorf("publishing a snapshot: %w", err)
		}
	}
	err := os.Rename(dir, s.path(chain))
	if err == nil {
		s.worker.o.Store.Grow(size)
	}
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, errNotEmpty) {
		return nil
	}
	return fmt.Errorf("publishing a snapshot: %w", err)
}

// completeTar writes the top layer of layers to out, so that it can be unpacked on its own: directories that it
// does not name but puts something into come first, as they are below; so do files below that it links to.
func (w *Worker) completeTar(ctx context.Context, layers []solve.Layer, out io.Writer) (err error) {
	top := layers[len(layers)-1]
	if f := w.virtual.get(top.DiffID); f != nil {
		return writeVirtual(ctx, f, out)
	}
	toc, err := w.toc(ctx, top)
	if err != nil {
		return err
	}
	if missing := layer.Missing(toc); len(missing) > 0 && len(layers) > 1 {
		view, err := w.View(ctx, layers[:len(layers)-1])
		if err != nil {
			return err
		}
		err = layer.WriteMembers(ctx, out, view, missing)
		if err := errors.Join(err, view.Close()); err != nil {
			return err
		}
	}
	r, err := w.openLayer(ctx, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(out, r)
	return err
}

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// Where nothing can be mounted, a snapshot is the whole tree of a chain of layers, and a step takes it away, changes it, and
// leaves it as the snapshot of the longer chain: there is one tree for each chain that a step ended last, and no copies.

// rootfs gives a step the file system of layers, which is in dir where it is a tree of its own, and a scratch directory. leave
// ends what it holds.
func (w *Worker) rootfs(ctx context.Context, step *sandbox.Step, dir string, layers []solve.Layer) (leave func() error, err error) {
	// It goes with the worker's: to remove it now costs the next step (ext4 looks at every inode that was freed in the last
	// seconds before it takes one).
	if step.Scratch, err = w.trees.scratch(); err != nil {
		return nil, err
	}
	none := func() error { return nil }
	if !w.pool.Whole() {
		step.Lowers, err = w.trees.lowers(ctx, layers)
		return none, err
	}
	step.Tree = filepath.Join(dir, "fs")
	if err := w.trees.take(ctx, layers, step.Tree); err != nil {
		return nil, err
	}
	view, err := w.View(ctx, layers)
	if err != nil {
		return nil, err
	}
	step.Content = view.Open
	return func() error {
		// A tree that was not kept is in no defined state.
		err := view.Close()
		if _, statErr := os.Lstat(step.Tree); statErr == nil {
			err = errors.Join(err, w.pool.Remove(context.WithoutCancel(ctx), dir))
		}
		return err
	}, nil
}

// take makes tree the tree of layers: the snapshot itself, if there is one, else a new one.
func (s *snapshots) take(ctx context.Context, layers []solve.Layer, tree string) error {
	if len(layers) > 0 {
		taken := tree + ".taken"
		switch err := os.Rename(s.path(chainIDs(layers)[len(layers)-1]), taken); {
		case err == nil:
			if err := layer.RenameTree(filepath.Join(taken, "fs"), tree); err == nil {
				return s.pool.Remove(ctx, taken)
			}
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("taking a snapshot: %w", err)
		}
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return fmt.Errorf("making a tree: %w", err)
	}
	if err := s.worker.needAll(ctx, layers); err != nil {
		return err
	}
	for _, l := range layers {
		err := s.lay(ctx, tree, func(out io.Writer) error { return s.worker.writeLayer(ctx, l, out) })
		if err != nil {
			return fmt.Errorf("unpacking layer %s: %w", l.DiffID, err)
		}
	}
	return nil
}

// lay applies the layer that write writes to a tree.
func (s *snapshots) lay(ctx context.Context, tree string, write func(io.Writer) error) error {
	pr, pw, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	written := make(chan error, 1)
	go func() { written <- errors.Join(write(pw), pw.Close()) }()
	err = s.pool.Unpack(ctx, tree, pr, layer.Limits{})
	pr.Close() // wakes the writer if Unpack stopped early
	if writeErr := <-written; writeErr != nil && (err == nil || !errors.Is(writeErr, errBrokenPipe)) {
		err = errors.Join(writeErr, err)
	}
	return err
}

// writeLayer writes a layer's tar.
func (w *Worker) writeLayer(ctx context.Context, l solve.Layer, out io.Writer) (err error) {
	if f := w.virtual.get(l.DiffID); f != nil {
		return writeVirtual(ctx, f, out)
	}
	r, err := w.openLayer(ctx, l)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, r.Close())
}

// copied makes a copy of what is at path in a result, a file or a directory, that a step may have for itself.
func (s *snapshots) copied(ctx context.Context, path string, from solve.Result) (_ string, err error) {
	dir, err := s.scratch()
	if err != nil {
		return "", err
	}
	view, err := s.worker.View(ctx, from.Layers)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	nothing, err := layer.NewView(nil)
	if err != nil {
		return "", err
	}
	b := layer.NewBuilder(nothing, time.Unix(0, 0))
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := (copier{b: b, from: view}).tree(ctx, path, "/copy"); err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", fmt.Errorf("making a copy: %w", err)
	}
	if err := s.lay(ctx, tree, func(out io.Writer) error { return b.WriteTo(ctx, out) }); err != nil {
		return "", err
	}
	return filepath.Join(tree, "copy"), nil
}

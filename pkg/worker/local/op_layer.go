package local

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// layerKey is the base's content and that of the sources.
func (w *Worker) layerKey(ctx context.Context, op graph.Layer, inputs []solve.Result) (digest.Digest, error) {
	parts := []digest.Digest{inputs[0].Identity()}
	for _, e := range op.Entries {
		if e.Source == "" {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return "", err
		}
		d, err := w.hashSource(e)
		if err != nil {
			return "", err
		}
		parts = append(parts, d)
	}
	return digestOf(parts...), nil
}

// hashSource is whether a source is executable, and its bytes.
func (w *Worker) hashSource(e graph.Entry) (_ digest.Digest, err error) {
	f, d, err := w.openSource(e)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("%s: source %q: %w", e.At, e.Source, err)
	}
	sum, err := d.sums.Sum(f, e.Source)
	if err != nil {
		return "", fmt.Errorf("%s: reading source %q: %w", e.At, e.Source, err)
	}
	return digest.FromString(fmt.Sprintln(executable(info.Mode()), hex.EncodeToString(sum[:]))), nil
}

// contextReader stops reading when ctx ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no context: bound for one copy
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// sourceDir is a context that files are read from, and what is known of them.
type sourceDir struct {
	source.Dir
	sums *source.Sums
}

// openSource opens an entry's source inside its context, never outside of it.
func (w *Worker) openSource(e graph.Entry) (*os.File, *sourceDir, error) {
	d, err := w.sourceDir(e.Context)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", e.At, err)
	}
	f, err := d.Open(e.Source)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: source: %w", e.At, err)
	}
	return f, d, nil
}

// sourceDir is a context's directory, which stays open.
func (w *Worker) sourceDir(name string) (*sourceDir, error) {
	w.virtual.mu.Lock()
	d := w.virtual.dirs[name]
	w.virtual.mu.Unlock()
	if d != nil {
		return d, nil
	}
	root, err := w.contextRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(root.Name())
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d = &sourceDir{Dir: source.Dir{Root: root}, sums: w.sumsOf(dir)}
	w.virtual.mu.Lock()
	defer w.virtual.mu.Unlock()
	if other := w.virtual.dirs[name]; other != nil {
		return other, d.Close()
	}
	w.virtual.dirs[name] = d
	return d, nil
}

// contextRoot opens a context's directory; one that is named "" is empty.
func (w *Worker) contextRoot(name string) (*os.Root, error) {
	dir, ok := w.o.Contexts[name]
	if !ok {
		return nil, fmt.Errorf("no build context %q", name)
	}
	if dir == "" {
		empty, err := w.scratch()
		if err != nil {
			return nil, err
		}
		dir = empty
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("build context %q: %w", name, err)
	}
	return root, nil
}

func executable(m os.FileMode) bool { return m&0o100 != 0 }

var tarTypes = map[graph.EntryType]byte{
	graph.TypeFile:      tar.TypeReg,
	graph.TypeDirectory: tar.TypeDir,
	graph.TypeSymlink:   tar.TypeSymlink,
	graph.TypeHardlink:  tar.TypeLink,
	graph.TypeFifo:      tar.TypeFifo,
	graph.TypeChar:      tar.TypeChar,
	graph.TypeBlock:     tar.TypeBlock,
}

// entries adds op's entries to b.
func (w *Worker) entries(ctx context.Context, b *layer.Builder, view *layer.View, op graph.Layer) error {
	for _, e := range op.Entries {
		if err := w.entry(ctx, b, view, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) entry(ctx context.Context, b *layer.Builder, view *layer.View, e graph.Entry) (err error) {
	if e.Type == graph.TypeArchive {
		return w.archive(ctx, b, e)
	}
	if e.IfMissing {
		if have, ok := view.Stat(e.Path); ok && have.Type == tar.TypeDir {
			return nil
		}
	}
	kind, ok := tarTypes[e.Type]
	if !ok {
		return fmt.Errorf("%s: unknown type %q of %s", e.At, e.Type, e.Path)
	}
	out := layer.Entry{
		Name: e.Path, Type: kind, Link: e.Target, Mode: 0o644, Major: e.Major, Minor: e.Minor,
		ModTime: time.Unix(e.Time, 0), Xattrs: e.Xattrs,
	}
	if e.Type == graph.TypeSymlink {
		out.Mode = 0o777
	}
	if e.Type == graph.TypeDirectory {
		out.Mode = 0o755
	}
	if e.Owner != "" {
		if out.UID, out.GID, err = view.LookupOwner(e.Owner); err != nil {
			return fmt.Errorf("%s: owner of %s: %w", e.At, e.Path, err)
		}
	}
	var open func() (io.ReadCloser, error)
	if e.Type == graph.TypeFile {
		if open, err = w.content(e, &out); err != nil {
			return err
		}
	}
	if e.Mode != nil {
		out.Mode = int64(*e.Mode)
	}
	if err := b.Add(out, open); err != nil {
		return fmt.Errorf("%s: %w", e.At, err)
	}
	return nil
}

// content sets a file's size and default mode and returns what opens its data.
func (w *Worker) content(e graph.Entry, out *layer.Entry) (func() (io.ReadCloser, error), error) {
	if e.Source == "" {
		out.Size = int64(len(e.Content))
		return openBytes(e.Content), nil
	}
	f, _, err := w.openSource(e)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: source %q: %w", e.At, e.Source, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: source %q is not a regular file", e.At, e.Source)
	}
	out.Size = info.Size()
	if executable(info.Mode()) {
		out.Mode = 0o755
	}
	return func() (io.ReadCloser, error) {
		f, d, err := w.openSource(e)
		if err != nil {
			return nil, err
		}
		return d.sums.Reader(f, e.Source), nil
	}, nil
}

// archive adds the members of a tar of the context.
func (w *Worker) archive(ctx context.Context, b *layer.Builder, e graph.Entry) (err error) {
	// The spool outlives this call: the builder reads it when it writes. It goes with the worker's scratch.
	spool, err := w.scratch()
	if err != nil {
		return err
	}
	open := func() (io.ReadCloser, error) {
		f, _, err := w.openSource(e)
		return f, err
	}
	if err := b.Archive(ctx, e.Path, open, spool, layer.Limits{}); err != nil {
		return fmt.Errorf("%s: archive %q: %w", e.At, e.Source, err)
	}
	return nil
}

package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// ociLayout is an image layout as a directory. Other images in it stay.
type ociLayout struct {
	spec Spec
	env  Env
	dir  directory
}

// checkLayout refuses a directory that is something else.
func checkLayout(path string, entries []os.DirEntry) error {
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { // what a kill leaves of a first write
		return e.Name() == ocispec.ImageBlobsDir || isTempName(e.Name())
	})
	if len(entries) == 0 {
		return nil
	}
	raw, err := readLayoutFile(path, ocispec.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return invalid("%s holds files and is no OCI layout: name an empty or a new directory", path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var layout ocispec.ImageLayout
	if _, err := jsontree.Decode(raw, &layout); err != nil {
		return invalid("%s: %w", filepath.Join(path, ocispec.ImageLayoutFile), err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return invalid("%s is an OCI layout of version %.20q: only 1.x can be written to", path, layout.Version)
	}
	if raw, err = readLayoutFile(path, ocispec.ImageIndexFile); err == nil {
		_, err = addToIndex(raw, ocispec.Descriptor{}, nil)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(path, ocispec.ImageIndexFile), err)
	}
	return nil
}

// readLayoutFile reads one of the two small files of a layout. A link is not followed: what it leads to is not ours.
func readLayoutFile(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case info.Size() > maxLayoutIndex:
		return nil, fmt.Errorf("%s has %d bytes, more than the limit of %d", name, info.Size(), maxLayoutIndex)
	}
	return os.ReadFile(path)
}

// Write implements Destination.
func (o *ociLayout) Write(ctx context.Context, p Product) error {
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	bar := track(o.env.Events, o.spec, c.size())
	err = o.dir.fill(ctx, func(dir string) error { return writeLayout(ctx, dir, c, p, bar) })
	if err == nil {
		bar.done()
	}
	return err
}

// layoutParallel is how many blobs are written at once.
const layoutParallel = 4

// writeLayout writes blobs under names that nobody knows, and when all are there, and nobody else is at it,
// renames them and writes index.json.
func writeLayout(ctx context.Context, dir string, c *closure, p Product, bar *progress) (err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := checkLayout(dir, entries); err != nil { // again: a build took its time
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	descs := c.all()
	pending := make([]*pendingFile, len(descs))
	defer func() {
		for _, f := range pending {
			f.abort()
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(layoutParallel)
	for i, desc := range descs {
		g.Go(func() (err error) {
			pending[i], err = writeBlob(gctx, root, c, desc, bar)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	unlock, err := lockDirectory(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, f := range pending {
		if err := f.commit(); err != nil {
			return err
		}
	}
	if err := syncDirectories(root, descs); err != nil {
		return err
	}
	if _, err := root.Lstat(ocispec.ImageLayoutFile); errors.Is(err, fs.ErrNotExist) {
		if err := replaceIn(root, ocispec.ImageLayoutFile, layoutFile()); err != nil {
			return err
		}
	}
	old, err := readLayoutFile(dir, ocispec.ImageIndexFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	idx, err := addToIndex(old, p.Root, p.Names)
	if err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return replaceIn(root, ocispec.ImageIndexFile, idx)
}

// writeBlob makes sure that a layout will hold a blob: nil says that it does. One that is there is
// believed when its digest is right.
func writeBlob(ctx context.Context, root *os.Root, c *closure, desc ocispec.Descriptor, bar *progress) (*pendingFile, error) {
	name := blobPath(desc)
	if hasBlob(ctx, root, name, desc) {
		bar.add(desc.Size)
		return nil, nil
	}
	return writePending(root, name, func(w io.Writer) error { return c.copy(ctx, bar.writer(w), desc) })
}

func hasBlob(ctx context.Context, root *os.Root, name string, desc ocispec.Descriptor) bool {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != desc.Size || !desc.Digest.Algorithm().Available() {
		return false
	}
	f, err := root.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	v := desc.Digest.Verifier()
	_, err = io.Copy(v, contextReader{ctx, f})
	return err == nil && v.Verified()
}

// pendingFile is a file in root that is written and synced, but does not have its name yet. A nil one is none.
type pendingFile struct {
	root      *os.Root
	tmp, name string
}

func writePending(root *os.Root, name string, fn func(w io.Writer) error) (_ *pendingFile, err error) {
	p := &pendingFile{root: root, name: name}
	var f *os.File
	for n := 0; ; n++ {
		p.tmp = tempName(path.Base(name), n)
		f, err = root.OpenFile(p.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n > 1000 {
			return nil, err
		}
	}
	err = fn(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		p.abort()
		return nil, err
	}
	return p, nil
}

func (p *pendingFile) commit() error {
	if p == nil {
		return nil
	}
	if err := p.root.MkdirAll(path.Dir(p.name), 0o777); err != nil {
		return err
	}
	if err := p.root.Rename(p.tmp, p.name); err != nil {
		return err
	}
	p.tmp = ""
	return nil
}

// abort removes the file unless it has its name.
func (p *pendingFile) abort() {
	if p != nil && p.tmp != "" {
		_ = p.root.Remove(p.tmp) // of no use, and there is an error already
	}
}

func replaceIn(root *os.Root, name string, data []byte) error {
	f, err := writePending(root, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	defer f.abort()
	return f.commit()
}

// syncDirectories makes the names of blobs durable before index.json names them.
func syncDirectories(root *os.Root, descs []ocispec.Descriptor) error {
	done := map[string]bool{}
	for _, desc := range descs {
		dir := path.Dir(blobPath(desc))
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := syncDirectory(root, dir); err != nil {
			return err
		}
	}
	return nil
}

package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

func openOCI(s Spec, env Env) (Destination, error) {
	if !s.Dir {
		f, err := openFile(s, env)
		return &ociArchive{spec: s, env: env, file: f}, err
	}
	d, err := openDirectory(s, env, checkLayout)
	return &ociLayout{spec: s, env: env, dir: d}, err
}

// ociArchive is an image layout as a tar.
type ociArchive struct {
	spec Spec
	env  Env
	file file
}

// Write implements Destination.
func (o *ociArchive) Write(ctx context.Context, p Product) error {
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	idx, err := addToIndex(nil, p.Root, p.Names)
	if err != nil {
		return err
	}
	bar := track(o.env.Events, o.spec, c.size())
	err = o.file.write(func(w io.Writer) error {
		a := newArchive(bar.writer(w), p.Epoch)
		if err := a.file(ocispec.ImageLayoutFile, layoutFile()); err != nil {
			return err
		}
		if err := a.file(ocispec.ImageIndexFile, idx); err != nil {
			return err
		}
		if err := a.blobs(ctx, c); err != nil {
			return err
		}
		return a.close()
	})
	if err == nil {
		bar.done()
	}
	return err
}

// layoutFile is the content of the file oci-layout.
func layoutFile() []byte {
	return []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
}

// ociLayout is an image layout as a directory. Other images in it stay.
type ociLayout struct {
	spec Spec
	env  Env
	dir  directory
}

// checkLayout refuses a directory that is something else.
func checkLayout(path string, entries []os.DirEntry) error {
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

// writeLayout writes blobs, and then their name into index.json.
func writeLayout(ctx context.Context, dir string, c *closure, p Product, bar *progress) error {
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
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(layoutParallel)
	for _, desc := range c.all() {
		g.Go(func() error { return writeBlob(gctx, root, c, desc, bar) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	unlock, err := lockDirectory(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := syncDirectories(root, c); err != nil {
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

// writeBlob makes sure that a layout holds a blob. One that is there is believed when its digest is right.
func writeBlob(ctx context.Context, root *os.Root, c *closure, desc ocispec.Descriptor, bar *progress) error {
	name := blobPath(desc)
	if hasBlob(ctx, root, name, desc) {
		bar.add(desc.Size)
		return nil
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return replaceWith(root, name, func(w io.Writer) error { return c.copy(ctx, bar.writer(w), desc) })
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

func replaceIn(root *os.Root, name string, data []byte) error {
	return replaceWith(root, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceWith is replace within root.
func replaceWith(root *os.Root, name string, fn func(w io.Writer) error) (err error) {
	var tmp *os.File
	var tmpName string
	for n := 0; ; n++ {
		tmpName = tempName(name, n)
		tmp, err = root.OpenFile(tmpName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil || !errors.Is(err, fs.ErrExist) || n > 1000 {
			break
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(tmp.Close()))
			_ = root.Remove(tmpName) // what is left of it is of no use, and err says why
		}
	}()
	if err := fn(tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return root.Rename(tmpName, name)
}

// syncDirectories makes the names of blobs durable before index.json names them.
func syncDirectories(root *os.Root, c *closure) error {
	done := map[string]bool{}
	for _, desc := range c.all() {
		dir := filepath.Dir(blobPath(desc))
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

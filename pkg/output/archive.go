package output

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive writes an image layout as a tar: members of one time, owner and mode, so that
// equal content gives equal bytes.
type archive struct {
	tw    *tar.Writer
	mtime time.Time
	dirs  map[string]bool
}

func newArchive(w io.Writer, epoch *int64) *archive {
	a := &archive{tw: tar.NewWriter(w), mtime: time.Unix(0, 0), dirs: map[string]bool{".": true}}
	if epoch != nil {
		a.mtime = time.Unix(*epoch, 0)
	}
	return a
}

// header starts a file, after the directories above it.
func (a *archive) header(name string, size int64) error {
	if err := a.directory(path.Dir(name)); err != nil {
		return err
	}
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: a.mtime})
}

func (a *archive) directory(name string) error {
	if a.dirs[name] {
		return nil
	}
	if err := a.directory(path.Dir(name)); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: a.mtime})
}

func (a *archive) file(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := a.tw.Write(data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// blobs writes everything that c holds: documents first, for readers that stream.
func (a *archive) blobs(ctx context.Context, c *closure, bar *progress) error {
	for i := len(c.docs) - 1; i >= 0; i-- {
		d := c.docs[i]
		if err := a.file(blobPath(d.desc), d.raw); err != nil {
			return err
		}
		bar.add(d.desc.Size)
	}
	for _, b := range c.blobs {
		if err := a.header(blobPath(b), b.Size); err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
		if err := c.copy(ctx, bar.writer(a.tw), b); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) close() error { return a.tw.Close() }

// blobPath is a blob's file in an image layout.
func blobPath(desc ocispec.Descriptor) string {
	return path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

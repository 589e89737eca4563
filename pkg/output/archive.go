package output

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive writes an image layout as a tar: members of one time, owner and mode, so that
// equal content gives equal bytes.
type archive struct {
	w     io.Writer
	left  int64 // bytes of the member under way that are still to come
	pad   int64 // zeros after them
	mtime time.Time
	dirs  map[string]bool
}

const tarBlock = 512

func newArchive(w io.Writer, epoch *int64) *archive {
	a := &archive{w: w, mtime: time.Unix(0, 0), dirs: map[string]bool{".": true}}
	if epoch != nil {
		a.mtime = time.Unix(*epoch, 0)
	}
	return a
}

// begin starts a member, whose Size bytes follow by Write or from.
func (a *archive) begin(h *tar.Header) error {
	if err := a.end(); err != nil {
		return err
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	a.left, a.pad = h.Size, (tarBlock-h.Size%tarBlock)%tarBlock
	_, err := a.w.Write(head.Bytes())
	return err
}

// end fills up the last member.
func (a *archive) end() error {
	if a.left > 0 {
		return fmt.Errorf("%d bytes of a member are missing", a.left)
	}
	_, err := a.w.Write(make([]byte, a.pad))
	a.pad = 0
	return err
}

// Write implements io.Writer for the bytes of the member that was begun.
func (a *archive) Write(p []byte) (int, error) {
	if int64(len(p)) > a.left {
		return 0, tar.ErrWriteTooLong
	}
	n, err := a.w.Write(p)
	a.left -= int64(n)
	return n, err
}

// fromPiece is how much of a file is copied before its context is looked at.
const fromPiece = 64 << 20

// from writes all bytes of the member that was begun. From file to file the kernel copies.
func (a *archive) from(ctx context.Context, f *os.File) error {
	for a.left > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := io.Copy(a.w, io.LimitReader(f, min(a.left, fromPiece)))
		a.left -= n
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// header starts a file, after the directories above it.
func (a *archive) header(name string, size int64) error {
	if err := a.directory(path.Dir(name)); err != nil {
		return err
	}
	return a.begin(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: a.mtime})
}

func (a *archive) directory(name string) error {
	if a.dirs[name] {
		return nil
	}
	if err := a.directory(path.Dir(name)); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.begin(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: a.mtime})
}

func (a *archive) file(name string, data []byte) error {
	if err := a.header(name, int64(len(data))); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := a.Write(data); err != nil {
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
		if f, ok := c.fresh(b); ok {
			err := errors.Join(a.from(ctx, f), f.Close())
			if err != nil {
				return fmt.Errorf("blob %s: %w", b.Digest, err)
			}
			bar.add(b.Size)
			continue
		}
		if err := c.copy(ctx, bar.writer(a), b); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) close() error {
	if err := a.end(); err != nil {
		return err
	}
	_, err := a.w.Write(make([]byte, 2*tarBlock))
	return err
}

// blobPath is a blob's file in an image layout.
func blobPath(desc ocispec.Descriptor) string {
	return path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Open gives the bytes of a document or blob of the contents, from the start.
type Open func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)

// Write writes the archive to a stream, from its start to its end. A blob that is not what its descriptor says is an
// error, after which what was written is of no use.
func Write(ctx context.Context, w io.Writer, c Contents, open Open) error {
	p, err := newPlan(c)
	if err != nil {
		return err
	}
	for i := range p.members {
		m := &p.members[i]
		h, err := m.headerBytes()
		if err != nil {
			return err
		}
		if _, err := w.Write(h); err != nil {
			return err
		}
		if m.desc.Digest == "" || m.raw != nil {
			_, err = w.Write(m.raw)
		} else {
			err = copyBlob(ctx, w, m.desc, open)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, padded(m.size())-m.size())); err != nil {
			return err
		}
	}
	_, err = w.Write(make([]byte, 2*block))
	return err
}

// copyBlob writes a blob, verified.
func copyBlob(ctx context.Context, w io.Writer, desc ocispec.Descriptor, open Open) (err error) {
	rc, err := open(ctx, desc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	v := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(w, v), io.LimitReader(contextReader{ctx, rc}, desc.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	case n != desc.Size:
		return fmt.Errorf("%w: blob %s: it has %d bytes, its descriptor says %d", ErrCorrupt, desc.Digest, n, desc.Size)
	case !v.Verified():
		return fmt.Errorf("%w: blob %s: its digest is another", ErrCorrupt, desc.Digest)
	}
	return nil
}

// contextReader stops with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Written says what WriteFile did.
type Written struct {
	Size  int64 // of the archive
	Moved int64 // bytes of blobs that were opened
	Kept  int64 // bytes of blobs that an earlier attempt had left
}

// PartialName is where a file is written until it is whole. It stays when that fails, and the next attempt goes on there.
func PartialName(path string) string { return path + ".partial" }

// WriteFile writes the archive to a file, which appears under its name when it is whole and on disk. Several blobs are
// written at once. What an attempt that did not end has left is used again, as far as it is right.
func WriteFile(ctx context.Context, path string, c Contents, concurrency int, open Open) (w Written, err error) {
	p, err := newPlan(c)
	if err != nil {
		return w, err
	}
	w.Size = p.size
	f, err := openPartial(PartialName(path))
	if err != nil {
		return w, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	old, err := f.Stat()
	if err != nil {
		return w, err
	}
	if err := f.Truncate(p.size); err != nil {
		return w, fmt.Errorf("making room for %d bytes: %w", p.size, err)
	}
	if err := p.writeFrame(f); err != nil {
		return w, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(concurrency, 1))
	var counts counter
	for i := range p.members {
		m := &p.members[i]
		if m.desc.Digest == "" || m.raw != nil {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if m.data()+m.size() <= old.Size() && m.isIn(gctx, f) {
				counts.add(&w.Kept, m.size())
				return nil
			}
			if err := copyBlob(gctx, io.NewOffsetWriter(f, m.data()), m.desc, open); err != nil {
				return err
			}
			counts.add(&w.Moved, m.size())
			return nil
		})
	}
	if err := errors.Join(g.Wait(), context.Cause(ctx)); err != nil {
		return w, err
	}
	if err := f.Sync(); err != nil {
		return w, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return w, err
	}
	return w, syncParent(path)
}

// writeFrame writes everything but blobs.
func (p *plan) writeFrame(f *os.File) error {
	for i := range p.members {
		m := &p.members[i]
		h, err := m.headerBytes()
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(h, m.at); err != nil {
			return err
		}
		if m.raw != nil {
			if _, err := f.WriteAt(m.raw, m.data()); err != nil {
				return err
			}
		}
		if gap := padded(m.size()) - m.size(); gap > 0 { // an earlier attempt may have had other contents
			if _, err := f.WriteAt(make([]byte, gap), m.data()+m.size()); err != nil {
				return err
			}
		}
	}
	_, err := f.WriteAt(make([]byte, 2*block), p.size-2*block)
	return err
}

// isIn reports whether a file holds the member's bytes in their place.
func (m *member) isIn(ctx context.Context, f io.ReaderAt) bool {
	v := m.desc.Digest.Verifier()
	n, err := io.Copy(v, contextReader{ctx, io.NewSectionReader(f, m.data(), m.size())})
	return err == nil && n == m.size() && v.Verified()
}

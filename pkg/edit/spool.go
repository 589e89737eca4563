package edit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// made is a layer that was made here: a file as it goes into an image.
type made struct {
	file   *os.File
	keep   bool // it is the caller's file
	desc   ocispec.Descriptor
	diffID digest.Digest
}

// open reads the layer from its start; several may read at once.
func (m *made) open() io.ReadCloser {
	return io.NopCloser(io.NewSectionReader(m.file, 0, m.desc.Size))
}

func (m *made) close() error {
	err := m.file.Close()
	if !m.keep {
		if rerr := os.Remove(m.file.Name()); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// compress makes a layer of an uncompressed tar.
func compress(ctx context.Context, dir string, tar io.Reader, c layer.Compression) (_ *made, err error) {
	f, err := os.CreateTemp(dir, "manifestctl-layer-*")
	if err != nil {
		return nil, err
	}
	m := &made{file: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	_ = os.Remove(f.Name()) // where an open file can be: then nothing is left if this process is killed
	id := digest.Canonical.Digester()
	blob := digest.Canonical.Digester()
	if err := layer.Compress(ctx, io.MultiWriter(f, blob.Hash()), io.TeeReader(tar, id.Hash()), c); err != nil {
		return nil, err
	}
	return m, m.describe(c, id.Digest(), blob.Digest())
}

func (m *made) describe(c layer.Compression, id, blob digest.Digest) error {
	info, err := m.file.Stat()
	if err != nil {
		return err
	}
	mt, err := c.MediaType(false)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	m.desc = ocispec.Descriptor{MediaType: mt, Digest: blob, Size: info.Size()}
	m.diffID = id
	return nil
}

// readLayer makes a layer of a tar in a file: as it is when it is compressed with gzip or zstd, else compressed. What is no
// layer is refused.
func readLayer(ctx context.Context, dir string, f *os.File, c layer.Compression) (*made, error) {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	kind := layer.Sniff(head[:n])
	check := func(w io.Writer) (*layer.TOC, error) {
		rc, err := layer.Decompress(ctx, io.NewSectionReader(f, 0, 1<<62), layer.Limits{})
		if err != nil {
			return nil, err
		}
		toc, err := layer.ReadTOC(ctx, io.TeeReader(rc, w), layer.Limits{})
		return toc, errors.Join(err, rc.Close())
	}
	if kind != layer.Gzip && kind != layer.Zstd {
		pr, pw := io.Pipe()
		failed := make(chan error, 1)
		go func() {
			_, err := check(pw)
			failed <- pw.CloseWithError(err)
		}()
		m, err := compress(ctx, dir, pr, c)
		err = errors.Join(err, pr.Close(), <-failed)
		return m, err
	}
	toc, err := check(io.Discard)
	if err != nil {
		return nil, err
	}
	blob := digest.Canonical.Digester()
	if _, err := io.Copy(blob.Hash(), io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return nil, err
	}
	m := &made{file: f, keep: true}
	return m, m.describe(layer.Compression{Algorithm: kind}, toc.DiffID, blob.Digest())
}

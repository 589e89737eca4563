package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// viewParallel is how many layers are unpacked at once.
const viewParallel = 2

// Tree is the merged tree of an image's layers. Closing it removes what was unpacked for it.
type Tree struct {
	*layer.View
	spools []*spool
}

// Close ends the use of the tree.
func (t *Tree) Close() error {
	var errs []error
	if t.View != nil {
		errs = append(errs, t.View.Close())
	}
	for _, s := range t.spools {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// View opens the merged tree of an image with these layers, lowest first. Each layer is unpacked to a temporary file in
// dir ("" is the system's place for them) and held against its diffID.
func View(ctx context.Context, img Image, layers []ocispec.Descriptor, diffIDs []digest.Digest, dir string) (_ *Tree, err error) {
	if len(layers) != len(diffIDs) {
		return nil, fmt.Errorf("%w: %d layers and %d diff_ids", ErrInvalid, len(layers), len(diffIDs))
	}
	t := &Tree{spools: make([]*spool, len(layers))}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	sources := make([]layer.Source, len(layers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(viewParallel)
	for i, l := range layers {
		g.Go(func() error {
			s, err := newSpool(dir)
			if err != nil {
				return err
			}
			t.spools[i] = s
			toc, err := unpack(gctx, img, l, s)
			if err != nil {
				return fmt.Errorf("layer %s: %w", l.Digest, err)
			}
			if toc.DiffID != diffIDs[i] {
				return fmt.Errorf("%w: layer %s unpacks to %s, and the config says %s", ErrInvalid, l.Digest, toc.DiffID, diffIDs[i])
			}
			sources[i] = layer.Source{TOC: toc, Open: func() (layer.ReaderAtCloser, error) { return shared{s.file}, nil }}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	t.View, err = layer.NewView(sources)
	return t, err
}

// unpack writes a layer's uncompressed tar to w and returns its table of contents.
func unpack(ctx context.Context, img Image, desc ocispec.Descriptor, w *spool) (_ *layer.TOC, err error) {
	rc, err := img.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	r, err := layer.DecompressLayer(ctx, rc, desc.MediaType, layer.Limits{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return layer.ReadTOC(ctx, io.TeeReader(r, w.file), layer.Limits{})
}

// spool is a temporary file without a name, where that is possible.
type spool struct {
	file   *os.File
	remove string // Windows: its name, removed when it is closed
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "manifestctl-layer-*.tar")
	if err != nil {
		return nil, err
	}
	s := &spool{file: f}
	if os.Remove(f.Name()) != nil {
		s.remove = f.Name()
	}
	return s, nil
}

// Close gives the space back.
func (s *spool) Close() error {
	err := s.file.Close()
	if s.remove != "" {
		err = errors.Join(err, os.Remove(s.remove))
	}
	return err
}

// shared reads a file that somebody else closes.
type shared struct{ io.ReaderAt }

// Close implements io.Closer.
func (shared) Close() error { return nil }

package edit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// FlattenOptions tunes Flatten. The zero value is the recommended one.
type FlattenOptions struct {
	Options
	Compression layer.Compression
}

// Flatten makes every image of src one of a single layer, which has what a container would see, and brings the result to
// names.
func Flatten(ctx context.Context, env transfer.Env, src ref.Ref, names []ref.Ref, o FlattenOptions) (Result, error) {
	return run(ctx, env, src, names, &flatten{dir: o.Spool, compression: o.Compression}, o.Options)
}

type flatten struct {
	dir         string
	compression layer.Compression

	keeping sync.Mutex // guards layers
	layers  []*made
	busy    sync.Mutex // one image at a time: it takes space
}

func (f *flatten) close() error {
	var errs []error
	for _, m := range f.layers {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

func (f *flatten) apply(ctx context.Context, s *subject) (*product, error) {
	m, err := f.layer(ctx, s)
	if err != nil {
		return nil, err
	}
	x, err := image.EditManifest(s.raw)
	if err != nil {
		return nil, err
	}
	l, err := image.NewLayer(m.desc)
	if err != nil {
		return nil, err
	}
	if err := x.SetLayers([]image.ManifestLayer{l}); err != nil {
		return nil, err
	}
	c, err := image.OpenConfig(s.config.Raw)
	if err != nil {
		return nil, err
	}
	err = c.Squash(m.diffID, ocispec.History{
		CreatedBy: "manifestctl flatten " + s.desc.Digest.String(),
		Comment:   fmt.Sprintf("%s of %d layers", image.Comment, len(s.manifest.Layers)),
	})
	if err != nil {
		return nil, err
	}
	p, err := finish(x, c.Bytes(), image.Edit{})
	if err == nil {
		p.blobs = map[digest.Digest]*made{m.desc.Digest: m}
	}
	return p, err
}

// layer writes the merged tree of an image as one layer.
func (f *flatten) layer(ctx context.Context, s *subject) (_ *made, err error) {
	f.busy.Lock()
	defer f.busy.Unlock()
	view, err := source.View(ctx, s.img, s.manifest.Layers, s.config.DiffIDs, f.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	pr, pw := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		err := layer.Flatten(ctx, view.View, pw, "")
		failed <- err
		_ = pw.CloseWithError(err) // it never fails
	}()
	m, err := compress(ctx, f.dir, pr, f.compression)
	_ = pr.CloseWithError(err)
	if werr := <-failed; err == nil {
		err = werr
	}
	if err != nil {
		return nil, err
	}
	f.keeping.Lock()
	defer f.keeping.Unlock()
	f.layers = append(f.layers, m)
	return m, nil
}

package edit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// AppendOptions tunes Append. The zero value is the recommended one.
type AppendOptions struct {
	Options
	Compression layer.Compression // of files that are not compressed with gzip or zstd already
	Change      Change            // of the configs, beside
}

// Change is a change of configs.
type Change = image.Edit

// Append adds layers, tars in any compression, on top of every image of src, and brings the result to names.
func Append(ctx context.Context, env transfer.Env, src ref.Ref, names []ref.Ref, layers []string, o AppendOptions) (Result, error) {
	a := &appending{change: o.Change}
	for _, path := range layers {
		m, err := openLayer(ctx, o.Spool, path, o.Compression)
		if err != nil {
			return Result{}, errors.Join(fmt.Errorf("%s: %w", path, err), a.close())
		}
		a.layers = append(a.layers, m)
	}
	if len(layers) == 0 {
		return Result{}, fmt.Errorf("%w: there is no layer to append", ErrInvalid)
	}
	return run(ctx, env, src, names, a, o.Options)
}

func openLayer(ctx context.Context, dir, path string, c layer.Compression) (*made, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%w: it is no regular file", ErrInvalid), err, f.Close())
	}
	m, err := readLayer(ctx, dir, f, c)
	if err != nil || !m.keep {
		err = errors.Join(err, f.Close())
	}
	return m, err
}

type appending struct {
	layers []*made
	change image.Edit
}

func (a *appending) close() error {
	var errs []error
	for _, m := range a.layers {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

func (a *appending) apply(_ context.Context, s *subject) (*product, error) {
	x, err := image.EditManifest(s.raw)
	if err != nil {
		return nil, err
	}
	all, err := x.Layers()
	if err != nil {
		return nil, err
	}
	c, err := image.OpenConfig(s.config.Raw)
	if err != nil {
		return nil, err
	}
	var ids []digest.Digest
	var history []ocispec.History
	blobs := map[digest.Digest]*made{}
	for _, m := range a.layers {
		l, err := image.NewLayer(m.desc)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
		ids = append(ids, m.diffID)
		history = append(history, ocispec.History{CreatedBy: "manifestctl append " + m.diffID.String()})
		blobs[m.desc.Digest] = m
	}
	if err := x.SetLayers(all); err != nil {
		return nil, err
	}
	if err := c.Append(ids, history); err != nil {
		return nil, err
	}
	if err := c.Apply(a.change); err != nil {
		return nil, err
	}
	p, err := finish(x, c.Bytes(), a.change)
	if err == nil {
		p.blobs = blobs
	}
	return p, err
}

// Spool copies a stream to a temporary file that is a layer's; the caller removes it.
func Spool(dir string, r io.Reader) (path string, err error) {
	f, err := os.CreateTemp(dir, "manifestctl-layer-*.tar")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	return f.Name(), errors.Join(err, f.Close())
}

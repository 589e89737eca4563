package verify

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/source"
)

// Images reads the images of an index, each as Judge wants it. read is how many bytes of layers were read, as they are stored.
// A layer that is broken is an error here.
func (r *Reader) Images(ctx context.Context, img source.Image, o Options) (images []Input, read int64, err error) {
	entries, err := source.List(ctx, img)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", img.Ref(), err)
	}
	seen := map[digest.Digest]bool{}
	for _, e := range entries {
		if e.Kind != source.EntryImage || seen[e.Desc.Digest] || e.Err == nil && len(o.Platforms) > 0 && !slices.Contains(o.Platforms, e.Platform) {
			continue
		}
		seen[e.Desc.Digest] = true
		in := Input{Platform: e.Platform, Digest: e.Desc.Digest, Allow: o.Allow}
		if err := e.Err; err != nil {
			return nil, read, fmt.Errorf("%s: %s: %w", img.Ref(), e.Desc.Digest, err)
		}
		var report Report
		if err := r.input(ctx, img, e, &in, &report); err != nil {
			return nil, read, fmt.Errorf("%s: %s: %w", img.Ref(), e.Platform, err)
		}
		read += report.Read
		if len(report.Findings) > 0 {
			return nil, read, fmt.Errorf("%s: %w: %s", img.Ref(), source.ErrInvalid, report.Findings[0])
		}
		images = append(images, in)
	}
	return images, read, nil
}

// input reads one image.
func (r *Reader) input(ctx context.Context, img source.Image, e source.Entry, in *Input, report *Report) error {
	m, _, err := source.ReadManifest(ctx, img, e.Desc)
	if err != nil {
		return err
	}
	config, err := source.ReadConfig(ctx, img, m)
	if err != nil {
		return err
	}
	in.Config = config.Image
	return r.layers(ctx, img, m.Layers, config.DiffIDs, in, report)
}

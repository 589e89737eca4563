package remotecache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// read adds what the place of s knows. What is known already stays: earlier places come first.
func (c *Cache) read(ctx context.Context, s Spec) error {
	img, err := c.opener.Open(ctx, s.Ref)
	if err != nil {
		return err
	}
	c.images = append(c.images, img)
	manifests := []ocispec.Descriptor{img.Root()}
	if index.IsIndex(img.Root().MediaType) {
		idx, err := source.ReadIndex(ctx, img, img.Root())
		if err != nil {
			return err
		}
		manifests = idx.Manifests
	}
	read := make([]config, len(manifests))
	kinds := make([]content, len(manifests))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(checks)
	for i, desc := range manifests {
		if !index.IsManifest(desc.MediaType) {
			kinds[i] = contentOf(desc.MediaType)
			continue
		}
		g.Go(func() (err error) {
			if read[i], kinds[i], err = readManifest(gctx, img, desc); err != nil {
				return fmt.Errorf("manifest %s: %w", desc.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if !slices.Contains(kinds, ours) {
		return other(kinds)
	}
	for _, cfg := range read {
		for _, l := range cfg.Layers {
			if have := c.layers[l.DiffID]; have == nil || have.Blob == nil && l.Blob != nil {
				c.layers[l.DiffID] = &known{layer: l, from: img, repo: img.Ref()}
			}
		}
		for _, r := range cfg.Records {
			if _, ok := c.records[r.Key]; !ok {
				c.records[r.Key] = r
			}
		}
	}
	return nil
}

// readManifest reads the records of one platform: of a cache, or inline of an image. An image without any has none.
func readManifest(ctx context.Context, img source.Image, desc ocispec.Descriptor) (config, content, error) {
	raw, err := img.Manifest(ctx, desc)
	if err != nil {
		return config{}, nothing, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return config{}, nothing, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	kind := contentOf(m.Config.MediaType)
	switch kind {
	case ours:
		raw, err := img.Manifest(ctx, m.Config)
		if err != nil {
			return config{}, kind, err
		}
		c, err := decodeConfig(raw)
		return c, kind, err
	case anImage:
		raw, err := img.Manifest(ctx, m.Config)
		if err != nil {
			return config{}, kind, err
		}
		c, err := inline(raw, m)
		if c.Version != 0 {
			kind = ours
		}
		return c, kind, err
	case nothing, buildKits:
	}
	return config{}, kind, nil
}

// inline reads the records in an image's config. Their layers are those of the image.
func inline(raw []byte, m ocispec.Manifest) (config, error) {
	var cfg struct {
		Records json.RawMessage `json:"manifestctl.cache.v1"`
		RootFS  struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &cfg); err != nil || cfg.Records == nil || len(cfg.RootFS.DiffIDs) != len(m.Layers) {
		return config{}, nil //nolint:nilerr // an image without records
	}
	c, err := decodeConfig(cfg.Records)
	if err != nil {
		return c, err
	}
	c.Layers = nil
	for i, id := range cfg.RootFS.DiffIDs {
		blob := ocispec.Descriptor{MediaType: m.Layers[i].MediaType, Digest: m.Layers[i].Digest, Size: m.Layers[i].Size}
		if index.CheckDigest(id) != nil || index.CheckDigest(blob.Digest) != nil || blob.Size <= 0 {
			return config{}, fmt.Errorf("%w: layer %d", ErrInvalid, i)
		}
		c.Layers = append(c.Layers, layer{DiffID: id, Compression: c.Compression, Blob: &blob})
	}
	return c, nil
}

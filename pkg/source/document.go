package source

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Config is an image's config, read and checked.
type Config struct {
	Raw      []byte
	Image    ocispec.Image // what image-spec knows of it
	Platform platform.Platform
	DiffIDs  []digest.Digest
	Created  time.Time // zero when it does not say
}

// ReadIndex reads the index that desc describes.
func ReadIndex(ctx context.Context, img Image, desc ocispec.Descriptor) (*index.Index, error) {
	raw, err := img.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, desc.Digest, err)
	}
	return idx, checkMediaType(desc, idx.Index.MediaType)
}

// ReadManifest reads the manifest that desc describes, of an image or an artifact.
func ReadManifest(ctx context.Context, img Image, desc ocispec.Descriptor) (ocispec.Manifest, []byte, error) {
	raw, err := img.Manifest(ctx, desc)
	if err != nil {
		return ocispec.Manifest{}, nil, err
	}
	m, err := index.ParseManifest(raw)
	if err != nil {
		return m, nil, fmt.Errorf("%w: %s: %w", ErrInvalid, desc.Digest, err)
	}
	return m, raw, checkMediaType(desc, m.MediaType)
}

// checkMediaType refuses a document that says it is of another type than its descriptor does (ROBUSTNESS.md b03).
func checkMediaType(desc ocispec.Descriptor, own string) error {
	if own != "" && desc.MediaType != "" && own != desc.MediaType {
		return fmt.Errorf("%w: the descriptor of %s says %q, the document itself %q", ErrInvalid, desc.Digest, desc.MediaType, own)
	}
	return nil
}

// ReadConfig reads the config of an image's manifest and checks it against the manifest: its type, and the number of layers.
func ReadConfig(ctx context.Context, img Image, m ocispec.Manifest) (Config, error) {
	if !index.IsConfig(m.Config.MediaType) {
		return Config{}, fmt.Errorf("%w: an artifact and no image: its config is of type %q", ErrInvalid, m.Config.MediaType)
	}
	raw, err := img.Manifest(ctx, m.Config)
	if err != nil {
		return Config{}, fmt.Errorf("the config: %w", err)
	}
	c, err := parseConfig(raw)
	if err != nil {
		return c, err
	}
	if len(c.DiffIDs) != len(m.Layers) {
		return c, fmt.Errorf("%w: the manifest lists %d layers, but the config %s has %d diff_ids", ErrInvalid, len(m.Layers), m.Config.Digest, len(c.DiffIDs))
	}
	return c, nil
}

// parseConfig reads a config by itself.
func parseConfig(raw []byte) (Config, error) {
	c := Config{Raw: raw}
	if _, err := jsontree.Decode(raw, &c.Image); err != nil {
		return c, fmt.Errorf("%w: the config: %w", ErrInvalid, err)
	}
	p, err := platform.FromOCI(c.Image.Platform)
	if err != nil {
		return c, invalidPlatform("the config", err)
	}
	c.Platform, c.DiffIDs = p, c.Image.RootFS.DiffIDs
	for i, d := range c.DiffIDs {
		if err := d.Validate(); err != nil {
			return c, fmt.Errorf("%w: the config: diff_ids[%d] %.100q: %w", ErrInvalid, i, string(d), err)
		}
	}
	if c.Image.Created != nil {
		c.Created = c.Image.Created.UTC()
	}
	return c, nil
}

// invalidPlatform reports a platform inside of an image. That error's own kind is for what people type.
func invalidPlatform(where string, err error) error {
	return fmt.Errorf("%w: %s: %v", ErrInvalid, where, err) //nolint:errorlint // hidden on purpose
}

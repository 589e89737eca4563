package remotecache

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/solve"
)

// The media types of a cache. Its tag is an index with a manifest for each platform that was built for; a manifest's config is
// the wire form below, its layers are the layers and the notes on them that the config names.
const (
	MediaTypeConfig = "application/vnd.manifestctl.cache.config.v1+json"
	MediaTypeNote   = "application/vnd.manifestctl.note.v1+zstd"
	ArtifactType    = "application/vnd.manifestctl.cache.v1"
)

// InlineKey is the key of the config of an image that holds its records.
const InlineKey = "manifestctl.cache.v1"

// version is the version of the wire form. Others are not read.
const version = 1

// Limits of what is read.
const (
	maxConfig  = 32 << 20 // bytes
	maxNote    = 256 << 20
	maxRecords = 1 << 20
)

// config is the wire form of a platform's records.
type config struct {
	Version int      `json:"version"`
	Records []record `json:"records"`
	Layers  []layer  `json:"layers,omitempty"` // none inline: the image's manifest has them
	// Compression is that of the layers inline.
	Compression string `json:"compression,omitempty"`
}

// record is a [solve.Record] whose layers are named by diffID.
type record struct {
	Key      digest.Digest           `json:"key"`
	Name     string                  `json:"name,omitempty"`
	Platform string                  `json:"platform,omitempty"`
	Layers   []digest.Digest         `json:"layers"`
	More     map[int][]digest.Digest `json:"more,omitempty"`
}

// layer is what is known of a layer.
type layer struct {
	DiffID      digest.Digest       `json:"diffID"`
	Size        int64               `json:"size,omitempty"`        // bytes, uncompressed
	Compression string              `json:"compression,omitempty"` // of Blob, as layer.Compression prints it
	Blob        *ocispec.Descriptor `json:"blob,omitempty"`        // none for a base image's
	// Notes are what is known of the layer's contents, so that it need not be read for it: by kind, see noteKinds.
	Notes map[string]ocispec.Descriptor `json:"notes,omitempty"`
}

// noteKinds are the kinds of records of a store that travel with a layer: its table of contents, and what its files say.
var noteKinds = []string{"toc", "facts"}

func wireRecord(key digest.Digest, r solve.Record) record {
	out := record{Key: key, Name: r.Name, Platform: r.Platform, Layers: diffIDs(r.Layers)}
	for i, layers := range r.More {
		if out.More == nil {
			out.More = map[int][]digest.Digest{}
		}
		out.More[i] = diffIDs(layers)
	}
	return out
}

func diffIDs(layers []solve.Layer) []digest.Digest {
	out := make([]digest.Digest, len(layers))
	for i, l := range layers {
		out[i] = l.DiffID
	}
	return out
}

// all gives every layer of r, each once.
func (r record) all() []digest.Digest {
	out := append([]digest.Digest(nil), r.Layers...)
	for _, more := range r.More {
		out = append(out, more...)
	}
	return out
}

// decodeConfig reads the wire form, whose author may be anybody who can write to the place.
func decodeConfig(raw []byte) (config, error) {
	var c config
	if len(raw) > maxConfig {
		return c, fmt.Errorf("%w: its records have %d bytes, at most %d are read", ErrInvalid, len(raw), maxConfig)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%w: its records cannot be read: %v", ErrInvalid, err)
	}
	if c.Version != version {
		return c, fmt.Errorf("%w: its records have version %d, this program reads %d", ErrInvalid, c.Version, version)
	}
	if len(c.Records) > maxRecords || len(c.Layers) > maxRecords {
		return c, fmt.Errorf("%w: too many records", ErrInvalid)
	}
	check := func(d digest.Digest) error {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("%w: digest %.80q: %v", ErrInvalid, string(d), err)
		}
		return nil
	}
	for _, r := range c.Records {
		for _, d := range append(r.all(), r.Key) {
			if err := check(d); err != nil {
				return c, err
			}
		}
	}
	for _, l := range c.Layers {
		if err := check(l.DiffID); err != nil {
			return c, err
		}
		descs := slices.Collect(maps.Values(l.Notes))
		if l.Blob != nil {
			descs = append(descs, *l.Blob)
		}
		for _, desc := range descs {
			if err := check(desc.Digest); err != nil {
				return c, err
			}
			if desc.Size <= 0 || l.Size < 0 {
				return c, fmt.Errorf("%w: layer %s has no size", ErrInvalid, l.DiffID)
			}
		}
	}
	return c, nil
}

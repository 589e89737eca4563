// Package image assembles the image of one platform: config and manifest as exact bytes.
//
// # Invariants
//
//   - The base's config is edited as a tree that keeps order and unknown fields; it is never decoded and encoded again.
//   - rootfs.diff_ids, the history's entries that are not empty, and the manifest's layers are equal in number.
//   - Equal inputs give equal bytes: the only times in an image are those of the [Input].
//   - The config of a frontend of BuildKit is completed byte for byte as BuildKit's exporter does it.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrInvalid is the kind of every error for input that cannot make an image.
var ErrInvalid = errors.New("invalid image")

// Comment stands in the history of the layers made here.
const Comment = "manifestctl"

// Layer is one finished layer.
type Layer struct {
	Desc    ocispec.Descriptor // as it is in the manifest, media type in OCI form
	DiffID  digest.Digest
	History *ocispec.History // nil for layers of the base, whose config has theirs
	Created *time.Time       // when the layer was made; only with Input.Frontend, nil when it is unknown
}

// Input is what an image is made from.
type Input struct {
	Platform platform.Platform
	Base     []byte // the base image's config, raw; nil for scratch
	// Frontend is the whole config when a frontend made it: Base, Patch and Created are then not used.
	Frontend    *graph.ImageConfig
	Layers      []Layer
	Patch       graph.ConfigPatch
	Annotations map[string]string
	Created     int64                      // seconds since the epoch
	Docker      bool                       // Docker's media types instead of OCI's
	Extra       map[string]json.RawMessage // further keys of the config
}

// Image is an assembled image: content is exact bytes.
type Image struct {
	Platform platform.Platform
	Desc     ocispec.Descriptor // of Manifest, with Platform set
	Manifest []byte
	Config   []byte
	CfgDesc  ocispec.Descriptor
	Layers   []ocispec.Descriptor
	DiffIDs  []digest.Digest
}

// Assemble makes config and manifest. Unknown fields of the base's config are kept. The config takes over the base's
// os.version, os.features and the spelling of its variant ("v8" for arm64) unless Platform says another.
func Assemble(in Input) (Image, error) {
	fail := func(err error) (Image, error) { return Image{}, err }
	img := Image{Platform: in.Platform}
	mediaTypes := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig},
	}
	if in.Docker {
		if len(in.Annotations) > 0 {
			return fail(fmt.Errorf("%w: Docker's manifest cannot hold annotations: use OCI media types or leave them out", ErrInvalid))
		}
		mediaTypes.MediaType = index.MediaTypeDockerManifest
		mediaTypes.Config.MediaType = index.MediaTypeDockerConfig
	}

	img.Layers = make([]ocispec.Descriptor, 0, len(in.Layers)) // [] and not null when there are none
	img.DiffIDs = make([]digest.Digest, 0, len(in.Layers))
	for i, l := range in.Layers {
		mt, err := LayerMediaType(l.Desc.MediaType, in.Docker)
		if err != nil {
			return fail(fmt.Errorf("layer %d, %s: %w", i+1, l.Desc.Digest, err))
		}
		for what, d := range map[string]digest.Digest{"digest": l.Desc.Digest, "diffID": l.DiffID} {
			if err := d.Validate(); err != nil {
				return fail(fmt.Errorf("%w: layer %d: %s %q: %w", ErrInvalid, i+1, what, d, err))
			}
		}
		desc := l.Desc
		desc.MediaType = mt
		desc.Platform = nil
		img.Layers = append(img.Layers, desc)
		img.DiffIDs = append(img.DiffIDs, l.DiffID)
	}

	makeIt := func() ([]byte, error) { return makeConfig(in) }
	if in.Frontend != nil {
		makeIt = func() ([]byte, error) { return frontendConfig(in.Frontend, in.Layers) }
	}
	config, err := makeIt()
	if err == nil {
		config, err = withExtra(config, in.Extra)
	}
	if err != nil {
		return fail(err)
	}
	img.Config = config
	img.CfgDesc = ocispec.Descriptor{
		MediaType: mediaTypes.Config.MediaType,
		Digest:    digest.FromBytes(config),
		Size:      int64(len(config)),
	}

	m := mediaTypes
	m.Config = img.CfgDesc
	m.Layers = img.Layers
	m.Annotations = in.Annotations // maps are marshalled sorted
	if img.Manifest, err = jsontree.Marshal(m); err != nil {
		return fail(err)
	}
	p := in.Platform.OCI()
	img.Desc = ocispec.Descriptor{
		MediaType: m.MediaType,
		Digest:    digest.FromBytes(img.Manifest),
		Size:      int64(len(img.Manifest)),
		Platform:  &p,
	}
	return img, nil
}

// withExtra adds keys to a config, in their order.
func withExtra(config []byte, extra map[string]json.RawMessage) ([]byte, error) {
	if len(extra) == 0 {
		return config, nil
	}
	doc, err := jsontree.Parse(config)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		value, err := jsontree.Parse(extra[key])
		if err != nil {
			return nil, err
		}
		doc.Set(key, value)
	}
	return doc.Bytes(), nil
}

// timestamp is how times are written in a config.
func timestamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

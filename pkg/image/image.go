// Package image assembles the image of one platform: config and manifest as exact bytes.
package image

import (
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Layer is one finished layer.
type Layer struct {
	Desc    ocispec.Descriptor // as it is in the manifest, media type in OCI form
	DiffID  digest.Digest
	History *ocispec.History // nil for layers of the base, whose config has theirs
}

// Input is what an image is made from.
type Input struct {
	Platform    platform.Platform
	Base        []byte // the base image's config, raw; nil for scratch
	Layers      []Layer
	Patch       graph.ConfigPatch
	Annotations map[string]string
	Created     int64
	Docker      bool // Docker's media types instead of OCI's
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

// Assemble makes config and manifest. Unknown fields of the base's config are kept.
func Assemble(in Input) (Image, error) { return Image{}, errors.New("image: not built yet") }

package testimage

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// Content is an image or an index with everything it reaches.
type Content struct {
	Desc  ocispec.Descriptor       // of the manifest or index; an image's has its platform
	Blobs map[digest.Digest][]byte // Desc's own bytes too; change or drop some to break it

	Layers  []LayerData // of an image
	Config  []byte      // of an image
	entries []ocispec.Descriptor
}

// Raw is the manifest or index itself.
func (c Content) Raw() []byte { return c.Blobs[c.Desc.Digest] }

// ImageOptions tunes ImageWith.
type ImageOptions struct {
	Docker      bool                 // Docker's media types
	Edit        func(*ocispec.Image) // the config, before it is written
	Annotations map[string]string
	Subject     *ocispec.Descriptor
}

// Image builds the image of platform ("linux/arm/v7") with OCI media types.
func Image(platform string, layers ...LayerData) Content {
	return ImageWith(ImageOptions{}, platform, layers...)
}

// ImageWith is Image with options.
func ImageWith(o ImageOptions, platform string, layers ...LayerData) Content {
	c := Content{Blobs: map[digest.Digest][]byte{}, Layers: layers}
	p := Platform(platform)
	created := Epoch
	config := ocispec.Image{Created: &created, Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	manifest := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Layers:      []ocispec.Descriptor{},
		Annotations: o.Annotations,
		Subject:     o.Subject,
	}
	configType := ocispec.MediaTypeImageConfig
	if o.Docker {
		manifest.MediaType, configType = DockerManifest, DockerConfig
	}
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID())
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("testimage layer %d", i+1)})
		manifest.Layers = append(manifest.Layers, c.add(l.mediaType(o.Docker), l.Blob()))
	}
	if o.Edit != nil {
		o.Edit(&config)
	}
	c.Config = encode(config)
	manifest.Config = c.add(configType, c.Config)
	c.Desc = c.add(manifest.MediaType, encode(manifest))
	c.Desc.Platform = &p
	return c
}

// IndexOptions tunes IndexWith.
type IndexOptions struct {
	Docker      bool // a Docker manifest list
	Annotations map[string]string
	Subject     *ocispec.Descriptor
}

// Index builds an OCI index of images, or of indexes.
func Index(children ...Content) Content { return IndexWith(IndexOptions{}, children...) }

// IndexWith is Index with options.
func IndexWith(o IndexOptions, children ...Content) Content {
	c := Content{Blobs: map[digest.Digest][]byte{}, entries: []ocispec.Descriptor{}}
	for _, child := range children {
		for d, data := range child.Blobs {
			c.Blobs[d] = data
		}
		c.entries = append(c.entries, child.Desc)
	}
	idx := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   c.entries,
		Annotations: o.Annotations,
		Subject:     o.Subject,
	}
	if o.Docker {
		idx.MediaType = DockerIndex
	}
	c.Desc = c.add(idx.MediaType, encode(idx))
	return c
}

// Document is content of one blob: any bytes under any media type.
func Document(mediaType string, data []byte) Content {
	c := Content{Blobs: map[digest.Digest][]byte{}}
	c.Desc = c.add(mediaType, data)
	return c
}

// Platform splits "os/arch[/variant]". It normalises nothing.
func Platform(s string) ocispec.Platform {
	parts := strings.SplitN(s, "/", 3)
	if len(parts) < 2 {
		panic(fmt.Sprintf("testimage: platform %q is not os/arch", s))
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p
}

func (c Content) add(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	c.Blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l LayerData) mediaType(docker bool) string {
	base, suffix := ocispec.MediaTypeImageLayer, map[string]string{"gzip": "+gzip", "zstd": "+zstd"}
	if docker {
		base, suffix = DockerLayer, map[string]string{"gzip": ".gzip", "zstd": ".zstd"}
	}
	if l.MediaType != "" {
		return l.MediaType
	}
	return base + suffix[l.Compression]
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	must(err, "%T", v)
	return data
}

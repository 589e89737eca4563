package index

import (
	_ "crypto/sha256" // the algorithms that digests are verified with
	_ "crypto/sha512"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// IsIndex reports whether mediaType is that of an index or manifest list.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerList
}

// IsManifest reports whether mediaType is that of an image manifest (artifacts have it too).
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest
}

// IsConfig reports whether mediaType is that of an image's config.
func IsConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == MediaTypeDockerConfig
}

// IsLayer reports whether mediaType is that of a filesystem layer in any compression.
func IsLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		MediaTypeDockerLayer, MediaTypeDockerLayer + ".gzip", MediaTypeDockerLayer + ".zstd",
		"application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return true
	}
	return false
}

// CheckDigest reports what is wrong with a digest. One of an algorithm that is not known here is right as long as it
// is well formed: it can be passed on, but nothing can be verified against it.
func CheckDigest(d digest.Digest) error {
	if d == "" {
		return errors.New("the digest is missing")
	}
	if err := d.Validate(); err != nil && !errors.Is(err, digest.ErrDigestUnsupported) {
		return fmt.Errorf("digest %.100q: %w", string(d), err)
	}
	return nil
}

// CheckDescriptor reports what is wrong with a descriptor: digest, size, media type, or data that is not what it describes.
func CheckDescriptor(desc ocispec.Descriptor) error {
	if err := CheckDigest(desc.Digest); err != nil {
		return err
	}
	switch {
	case desc.Size < 0:
		return fmt.Errorf("%s has the size %d", desc.Digest, desc.Size)
	case desc.MediaType == "":
		return fmt.Errorf("%s has no mediaType", desc.Digest)
	}
	if desc.Data == nil {
		return nil
	}
	if int64(len(desc.Data)) != desc.Size {
		return fmt.Errorf("%s holds %d bytes of data, but its size is %d", desc.Digest, len(desc.Data), desc.Size)
	}
	if desc.Digest.Algorithm().Available() {
		if got := desc.Digest.Algorithm().FromBytes(desc.Data); got != desc.Digest {
			return fmt.Errorf("the data of %s is that of %s", desc.Digest, got)
		}
	}
	return nil
}

// IsForeign reports whether a layer is not to be distributed: whoever wants it gets it from its owner (image
// specification, "Non-Distributable Layers").
func IsForeign(mediaType string) bool {
	return strings.Contains(mediaType, "nondistributable") || strings.Contains(mediaType, ".foreign.")
}

package image

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
)

// The media types of layers, uncompressed; OCI's usual one is ocispec.MediaTypeImageLayer.
const (
	dockerLayer   = index.MediaTypeDockerLayer
	dockerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeign    = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// LayerMediaType returns the media type that means the same as mediaType in OCI's family, or in Docker's. Types that
// are no filesystem layer, and encrypted ones, have no counterpart: they stay in an OCI manifest, and are an error in
// a Docker one, as zstd is.
func LayerMediaType(mediaType string, docker bool) (string, error) {
	tar, compression := splitLayer(mediaType)
	foreign := tar == ociForeign || tar == dockerForeign
	if !docker {
		switch {
		case tar == "":
			return mediaType, nil
		case foreign:
			return ociForeign + suffix("+", compression), nil
		}
		return ocispec.MediaTypeImageLayer + suffix("+", compression), nil
	}
	switch {
	case tar == "":
		return "", fmt.Errorf("%w: Docker's media types have none for %q: use OCI media types", ErrInvalid, mediaType)
	case compression == "zstd":
		return "", fmt.Errorf("%w: Docker's media types have none for zstd: use gzip or OCI media types", ErrInvalid)
	case foreign:
		return dockerForeign + suffix(".", compression), nil
	}
	return dockerLayer + suffix(".", compression), nil
}

// splitLayer takes a layer's media type apart; tar is "" when it is none.
func splitLayer(mediaType string) (tar, compression string) {
	for base, separator := range map[string]string{
		ocispec.MediaTypeImageLayer: "+", ociForeign: "+", dockerLayer: ".", dockerForeign: ".",
	} {
		rest, ok := strings.CutPrefix(mediaType, base)
		if !ok {
			continue
		}
		switch rest {
		case "":
			return base, ""
		case separator + "gzip", separator + "zstd":
			return base, rest[1:]
		}
	}
	return "", ""
}

func suffix(separator, compression string) string {
	if compression == "" {
		return ""
	}
	return separator + compression
}

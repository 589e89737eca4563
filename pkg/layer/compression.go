package layer

import (
	"fmt"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The algorithms of [Compression].
const (
	Gzip         = "gzip"
	Zstd         = "zstd"
	EStargz      = "estargz" // gzip with a table of contents: [Estargz]
	Uncompressed = "uncompressed"
)

// Docker's media types of layers.
const (
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// defaultLevel is pinned: it decides the bytes of every layer.
const (
	defaultGzipLevel = 6
	defaultZstdLevel = 3
)

// Compression is how a layer is stored in an image.
type Compression struct {
	Algorithm string // "gzip" (the zero value means gzip), "zstd", "estargz", "uncompressed"
	Level     int    // 0 is the algorithm's default
}

func (c Compression) algorithm() string {
	if c.Algorithm == "" {
		return Gzip
	}
	return c.Algorithm
}

// check reports an unknown algorithm or a level that it does not have.
func (c Compression) check() error {
	top := 0
	switch c.algorithm() {
	case Gzip, EStargz:
		top = 9
	case Zstd:
		top = 22
	case Uncompressed:
	default:
		return fmt.Errorf("%w: compression %q: use gzip, zstd, estargz or uncompressed", ErrInvalid, c.Algorithm)
	}
	if c.Level < 0 || c.Level > top {
		return fmt.Errorf("%w: %s has no level %d, only up to %d", ErrInvalid, c.algorithm(), c.Level, top)
	}
	return nil
}

// MediaType is the layer's media type, OCI's or Docker's. Docker has none for zstd: an error.
func (c Compression) MediaType(docker bool) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	switch alg := c.algorithm(); {
	case (alg == Gzip || alg == EStargz) && docker:
		return dockerLayerGzip, nil
	case alg == Gzip, alg == EStargz:
		return ocispec.MediaTypeImageLayerGzip, nil
	case alg == Zstd && docker:
		return "", fmt.Errorf("%w: Docker has no media type for zstd layers: use OCI's, or gzip", ErrMediaType)
	case alg == Zstd:
		return ocispec.MediaTypeImageLayerZstd, nil
	case docker:
		return dockerLayer, nil
	default:
		return ocispec.MediaTypeImageLayer, nil
	}
}

// String is "gzip", "zstd-19", ...: a key for records.
func (c Compression) String() string {
	if c.Level == 0 {
		return c.algorithm()
	}
	return c.algorithm() + "-" + strconv.Itoa(c.Level)
}

// ParseCompression reads the attributes compression= and compression-level=. Either may be empty.
func ParseCompression(algorithm, level string) (Compression, error) {
	c := Compression{Algorithm: algorithm}
	if c.Algorithm == "" {
		c.Algorithm = Gzip
	}
	if level != "" {
		n, err := strconv.Atoi(level)
		if err != nil {
			return Compression{}, fmt.Errorf("%w: compression level %q is no number", ErrInvalid, level)
		}
		if n == 0 && (c.Algorithm == Gzip || c.Algorithm == EStargz) {
			return Compression{}, fmt.Errorf("%w: level 0 stores without compressing: use compression=uncompressed", ErrInvalid)
		}
		c.Level = n
	}
	if err := c.check(); err != nil {
		return Compression{}, err
	}
	return c, nil
}

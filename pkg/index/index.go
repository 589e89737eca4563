// Package index assembles, reads and edits OCI indexes and Docker manifest lists
// as exact bytes. It imports nothing that runs or stores anything, so other
// programs can use it on any operating system.
package index

import (
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrInvalid is the kind of every error for bytes that are no index.
var ErrInvalid = errors.New("invalid index")

// Options tunes Assemble. The zero value is the recommended one.
type Options struct {
	Annotations map[string]string
	Docker      bool // a Docker manifest list
}

// Assemble makes an index of manifests (each with its Platform set), in the order given. Two entries of one
// platform are an error.
func Assemble(manifests []ocispec.Descriptor, o Options) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{}, nil, errors.New("index: not built yet")
}

// Index is a parsed index. Raw is what was signed and is never changed.
type Index struct {
	Raw       []byte
	MediaType string
	Manifests []ocispec.Descriptor
	ocispec.Index
}

// Parse reads an index or manifest list and checks it (descriptors, sizes, digests, duplicates of JSON keys).
func Parse(raw []byte) (*Index, error) { return nil, errors.New("index: not built yet") }

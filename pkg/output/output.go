// Package output writes finished images to where they go. A kind of destination
// is one file and one row in kinds.go.
package output

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// ErrInvalid is the kind of every error in an -o argument.
var ErrInvalid = errors.New("invalid output")

// Spec is a parsed -o argument: "type=oci,dest=out.tar", "out/" (local), "-" (tar on stdout).
type Spec struct {
	Type         string // oci, docker, local, tar, registry, image
	Dest         string // path, "-" is stdout
	Dir          bool   // tar=false: a directory
	Names        []string
	Push         bool
	PushByDigest bool
	Compression  layer.Compression
	Force        bool // force-compression
	DockerTypes  bool // oci-mediatypes=false, and type=docker
	Rewrite      bool // rewrite-timestamp
}

// Parse reads one -o argument in buildx's grammar (CSV of key=value, or a path).
func Parse(s string) (Spec, error) { return Spec{}, ErrInvalid }

// Content opens blobs of a product; the store is one.
type Content interface {
	Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// Product is what a build made.
type Product struct {
	Root    ocispec.Descriptor // the index, or the manifest when there is one image and no index was asked for
	Raw     []byte             // of Root
	Images  []image.Image
	Names   []ref.Ref // tags
	Content Content
	// Mounts names repositories that are known to hold a blob, for mounting instead of uploading.
	Mounts map[digest.Digest][]ref.Ref
	// View opens the merged tree of an image, for local and tar.
	View  func(ctx context.Context, img image.Image) (*layer.View, error)
	Epoch *int64
}

// Env is what destinations work with.
type Env struct {
	Store    *store.Store
	Registry *registry.Client
	Stdout   io.Writer
	Events   event.Sink
	Dir      string // relative dest paths are relative to it; "" is the working directory
}

// Destination is one place a product can be written to. Write is atomic as far as the place allows: children
// first, names last; an error leaves what was there.
type Destination interface {
	Write(ctx context.Context, p Product) error
}

// Open checks a spec against its kind (unknown attributes, missing dest, dest that cannot be written) before anything is built.
func Open(s Spec, env Env) (Destination, error) { return nil, errors.New("output: not built yet") }

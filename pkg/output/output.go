// Package output writes finished images to where they go. A kind of destination
// is one file and one row in kinds.go.
//
// # Invariants
//
//   - What is wrong with a destination is said by [Open], before anything is built.
//   - Blobs are written before the manifests that name them, and names last.
//   - A file is replaced as a whole: its readers see the old or the new content, and an error leaves the old.
//   - Equal products give equal bytes: no clock, owner, umask or map order is in an archive.
package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// ErrInvalid is the kind of every error in an -o argument.
var ErrInvalid = errors.New("invalid output")

// Spec is a parsed -o argument: "type=oci,dest=out.tar", "out/" (local), "-" (tar on stdout).
type Spec struct {
	Type         string // a name in [Kinds]: oci, docker, local, tar, registry, image
	Dest         string // path, "-" is stdout
	Dir          bool   // tar=false: a directory
	Names        []string
	Push         bool // always with registry
	PushByDigest bool
	Canonical    bool // name-canonical: the store names the result NAME@DIGEST too
	Unnamed      bool // the store gets the content and no name
	Compression  layer.Compression
	Force        bool // force-compression
	DockerTypes  bool // oci-mediatypes=false, and type=docker
	Rewrite      bool // rewrite-timestamp
}

// title is what progress calls the writing of s.
func (s Spec) title() string {
	if s.Dest == "" {
		return "exporting to " + s.Type
	}
	return "exporting to " + s.Type + " " + s.Dest
}

// Content opens blobs of a product; the store is one. Whoever reads a blob to io.EOF has verified it.
type Content interface {
	Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// Fresh is implemented by contents that know which blobs this process has just written and digested. Their bytes need not be
// digested again, so that the kernel can copy them.
type Fresh interface {
	// Fresh opens such a blob's file; false for all others.
	Fresh(desc ocispec.Descriptor) (*os.File, bool)
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
	// View opens the merged tree of an image, for local and tar. The destination closes it.
	View  func(ctx context.Context, img image.Image) (*layer.View, error)
	Epoch *int64 // seconds: the time of the members of archives
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

// PlatformChecker is implemented by destinations that cannot hold every set of platforms. Whoever knows the
// platforms before a build asks then; Write asks again.
type PlatformChecker interface {
	CheckPlatforms(ps []platform.Platform) error
}

// Open checks a spec against its kind (missing dest, dest that cannot be written, push without a name) before
// anything is built. It writes nothing that stays.
func Open(s Spec, env Env) (Destination, error) {
	k, err := kindOf(s.Type)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d, err := k.open(s, env)
	if err != nil {
		return nil, fmt.Errorf("output type=%s: %w", s.Type, err)
	}
	return d, nil
}

// CheckAll reports specs that cannot be written together because they go to one place.
func CheckAll(specs []Spec) error {
	for i, s := range specs {
		for _, other := range specs[:i] {
			if s.Dest != "" && s.Dest == other.Dest && !(s.Type == "oci" && other.Type == "oci" && s.Dir && other.Dir) {
				return fmt.Errorf("%w: two outputs go to dest=%s", ErrInvalid, s.Dest)
			}
		}
	}
	return nil
}

// invalid is an error of kind ErrInvalid.
func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, a...))
}

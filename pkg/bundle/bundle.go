// Package bundle is the archive that carries images over an air gap: an OCI layout
// in a tar that any tool reads, with a list of all that is in it, so that whoever
// receives it knows before the first byte is used that every byte is as it was.
//
// It neither fetches nor installs anything: package transfer does.
//
// # Format
//
// A tar of these members, in this order, all of mode 0644 (directories 0755), owner
// 0 and time 0: oci-layout, index.json, the contents (a [Contents] as JSON, a blob
// whose digest the annotation [AnnotationContents] of index.json names), the
// manifests and indexes, the other blobs. index.json follows from the contents.
// Equal contents give equal bytes.
//
// # Invariants
//
//   - [Archive.Verify] accepts exactly the bytes that [Write] makes of the contents:
//     a flipped bit anywhere, in a blob, a name, a header or between members, is an error.
//   - What the roots reach is in the archive, or is listed as its base: what an older
//     archive brought. Verify finds out without anything else.
//   - A file that was not finished is taken up where it was left, blob by blob, and
//     nothing of it is believed that was not hashed again.
package bundle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
)

// The kinds of errors.
var (
	// ErrCorrupt says that an archive is not as it was written.
	ErrCorrupt = errors.New("damaged archive")
	// ErrIncomplete says that it ends too early, or lacks what its images need.
	ErrIncomplete = errors.New("incomplete archive")
	// ErrInvalid says that it holds what no archive of images does, or contradicts itself.
	ErrInvalid = errors.New("invalid archive")
)

// AnnotationContents is the annotation of an index.json that names the contents.
const AnnotationContents = "io.github.manifestctl.bundle"

// MediaType is that of the contents.
const MediaType = "application/vnd.io.github.manifestctl.bundle.v1+json"

const (
	version = 1
	// maxContents is how many bytes a list of contents may have: of some 300,000 blobs.
	maxContents = 64 << 20
	// maxBlobs is how many descriptors it may have.
	maxBlobs = 500_000
)

// Contents is what an archive holds. As a file by itself it is a lock: what is on the other side when the archive has
// been loaded there.
type Contents struct {
	Version   int                  `json:"version"`
	Roots     []ocispec.Descriptor `json:"roots"`          // entries of index.json, with their annotations
	Documents []ocispec.Descriptor `json:"documents"`      // manifests and indexes in the archive, in its order
	Blobs     []ocispec.Descriptor `json:"blobs"`          // other blobs in the archive, in its order
	Base      []ocispec.Descriptor `json:"base,omitempty"` // blobs that are needed and not in the archive
}

// Known is what whoever has loaded the archive has: everything in it, and its base.
func (c Contents) Known() map[digest.Digest]bool {
	known := map[digest.Digest]bool{}
	for _, list := range [][]ocispec.Descriptor{c.Documents, c.Blobs, c.Base} {
		for _, d := range list {
			known[d.Digest] = true
		}
	}
	return known
}

// Encode returns the bytes of a list of contents, which equal lists have alike.
func (c Contents) Encode() ([]byte, error) {
	c.Version = version
	for _, l := range []*[]ocispec.Descriptor{&c.Roots, &c.Documents, &c.Blobs} {
		if *l == nil {
			*l = []ocispec.Descriptor{} // a list, and not null
		}
	}
	raw, err := jsontree.Marshal(c)
	if err == nil && len(raw) > maxContents {
		err = fmt.Errorf("%w: the list of what it holds would have %d bytes, more than the limit of %d: make several", ErrInvalid, len(raw), maxContents)
	}
	return raw, err
}

// ParseContents reads the contents, and checks everything that can be checked without the archive.
func ParseContents(raw []byte) (Contents, error) {
	var c Contents
	fail := func(format string, a ...any) (Contents, error) {
		return Contents{}, fmt.Errorf("%w: its contents: %w", ErrInvalid, fmt.Errorf(format, a...))
	}
	if len(raw) > maxContents {
		return fail("%d bytes are more than the limit of %d", len(raw), maxContents)
	}
	if _, err := jsontree.Decode(raw, &c); err != nil {
		return fail("%w", err)
	}
	if c.Version != version {
		return fail("version %d is not known, only %d: a newer manifestctl wrote it", c.Version, version)
	}
	if n := len(c.Documents) + len(c.Blobs) + len(c.Base); n > maxBlobs {
		return fail("%d blobs are more than the limit of %d", n, maxBlobs)
	}
	seen := map[digest.Digest]bool{}
	for _, list := range [][]ocispec.Descriptor{c.Documents, c.Blobs, c.Base} {
		for _, d := range list {
			if err := index.CheckDescriptor(d); err != nil {
				return fail("%w", err)
			}
			if !d.Digest.Algorithm().Available() {
				return fail("%s: %q is an unsupported digest algorithm", d.Digest, d.Digest.Algorithm())
			}
			if seen[d.Digest] {
				return fail("%s is listed twice", d.Digest)
			}
			seen[d.Digest] = true
		}
	}
	for _, d := range c.Documents {
		if d.Size > index.MaxSize {
			return fail("%s has %d bytes, more than the limit of %d for manifests", d.Digest, d.Size, index.MaxSize)
		}
	}
	for _, r := range c.Roots {
		if err := index.CheckDescriptor(r); err != nil {
			return fail("%w", err)
		}
		if !slices.ContainsFunc(c.Documents, func(d ocispec.Descriptor) bool { return d.Digest == r.Digest && d.Size == r.Size }) {
			return fail("the root %s is not among the documents", r.Digest)
		}
	}
	return c, nil
}

// Index is the index.json of an archive with these contents.
func (c Contents) Index(contents digest.Digest) ([]byte, error) {
	roots := c.Roots
	if roots == nil {
		roots = []ocispec.Descriptor{}
	}
	return jsontree.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: roots,
		Annotations: map[string]string{AnnotationContents: contents.String()},
	})
}

// Name is what an entry of an index.json is called: its whole name if it has one, else its tag.
func Name(root ocispec.Descriptor) string {
	if n := root.Annotations[AnnotationName]; n != "" {
		return n
	}
	return root.Annotations[ocispec.AnnotationRefName]
}

// AnnotationName is where containerd, BuildKit and Docker write the whole name of an entry of index.json.
const AnnotationName = "io.containerd.image.name"

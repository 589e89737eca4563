// Package index assembles and reads OCI indexes, Docker manifest lists and the
// manifests they point at, as exact bytes. It imports nothing that runs or stores
// anything, so other programs can use it on any operating system.
//
// # Invariants
//
//   - Raw bytes are what was signed: nothing read here is ever serialised again.
//   - A document that two readers could understand differently is refused (ROBUSTNESS.md b03, b04, b10).
//   - Equal inputs give equal bytes.
package index

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrInvalid is the kind of every error for bytes that are no index, and for entries that cannot make one.
var ErrInvalid = errors.New("invalid index")

// The annotations that BuildKit marks attestations in an index with.
const (
	AnnotationReferenceType   = "vnd.docker.reference.type"
	AnnotationReferenceDigest = "vnd.docker.reference.digest"
	attestationManifest       = "attestation-manifest"
)

// Options tunes Assemble. The zero value is the recommended one.
type Options struct {
	Annotations map[string]string
	Docker      bool // a Docker manifest list
}

// Assemble makes an index of manifests (each with its Platform set, but for attestations and nested indexes), in
// the order given. Two entries of one platform are an error. The descriptor returned has no platform.
func Assemble(manifests []ocispec.Descriptor, o Options) (ocispec.Descriptor, []byte, error) {
	fail := func(err error) (ocispec.Descriptor, []byte, error) { return ocispec.Descriptor{}, nil, err }
	if len(manifests) > MaxDescriptors {
		return fail(fmt.Errorf("%w: %d entries are more than the limit of %d", ErrInvalid, len(manifests), MaxDescriptors))
	}
	seen := make(map[platform.Platform]digest.Digest, len(manifests))
	for i, m := range manifests {
		if err := CheckDescriptor(m); err != nil {
			return fail(fmt.Errorf("%w: entry %d: %w", ErrInvalid, i+1, err))
		}
		if IsAttestation(m) || IsIndex(m.MediaType) {
			continue
		}
		if m.Platform == nil {
			return fail(fmt.Errorf("%w: entry %s has no platform: set one", ErrInvalid, m.Digest))
		}
		p, err := platform.FromOCI(*m.Platform)
		if err != nil {
			return fail(fmt.Errorf("%w: entry %s: %v", ErrInvalid, m.Digest, err)) //nolint:errorlint // that kind is for what people type
		}
		if first, ok := seen[p]; ok {
			return fail(fmt.Errorf("%w: %s stands for two manifests, %s and %s: leave one out", ErrInvalid, p, first, m.Digest))
		}
		seen[p] = m.Digest
	}
	if manifests == nil {
		manifests = []ocispec.Descriptor{} // [] and not null
	}
	idx := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   manifests,
		Annotations: o.Annotations,
	}
	if o.Docker {
		if len(o.Annotations) > 0 {
			return fail(fmt.Errorf("%w: a Docker manifest list cannot hold annotations: use OCI media types or leave them out", ErrInvalid))
		}
		idx.MediaType = MediaTypeDockerList
	}
	raw, err := jsontree.Marshal(idx)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if len(raw) > MaxSize {
		return fail(fmt.Errorf("%w: its %d bytes are more than the %d that registries take", ErrInvalid, len(raw), MaxSize))
	}
	return ocispec.Descriptor{MediaType: idx.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, nil
}

// Index is a parsed index. Raw is what was signed and is never changed.
type Index struct {
	Raw       []byte
	MediaType string
	Manifests []ocispec.Descriptor
	ocispec.Index
}

// Parse reads an index or manifest list and checks it (descriptors, sizes, digests, duplicates of JSON keys).
// A missing mediaType means an OCI index.
func Parse(raw []byte) (*Index, error) {
	kind, tree, err := sniff(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if kind != documentIndex {
		return nil, fmt.Errorf("%w: it is %s", ErrInvalid, kind)
	}
	idx := &Index{Raw: raw}
	if err := tree.Decode(&idx.Index); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	idx.MediaType = idx.Index.MediaType
	if idx.MediaType == "" {
		idx.MediaType = ocispec.MediaTypeImageIndex
	}
	idx.Manifests = idx.Index.Manifests
	for i, m := range idx.Manifests {
		if err := CheckDescriptor(m); err != nil {
			return nil, fmt.Errorf("%w: manifests[%d]: %w", ErrInvalid, i, err)
		}
		if IsConfig(m.MediaType) || IsLayer(m.MediaType) {
			return nil, fmt.Errorf("%w: manifests[%d]: %s is no manifest but %q", ErrInvalid, i, m.Digest, m.MediaType)
		}
	}
	if idx.Subject != nil {
		if err := CheckDescriptor(*idx.Subject); err != nil {
			return nil, fmt.Errorf("%w: subject: %w", ErrInvalid, err)
		}
	}
	return idx, nil
}

// IsAttestation reports whether an entry of an index describes another entry (SBOM, provenance) and is no
// platform's image: by BuildKit's annotation, or by the platform unknown/unknown.
func IsAttestation(desc ocispec.Descriptor) bool {
	if desc.Annotations[AnnotationReferenceType] == attestationManifest {
		return true
	}
	return desc.Platform != nil && strings.EqualFold(desc.Platform.OS, "unknown") && strings.EqualFold(desc.Platform.Architecture, "unknown")
}

// Attests returns the digest of the entry that the attestation desc describes, or "" when it does not say.
func Attests(desc ocispec.Descriptor) digest.Digest {
	d := digest.Digest(desc.Annotations[AnnotationReferenceDigest])
	if CheckDigest(d) != nil {
		return ""
	}
	return d
}

package index

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// Resubject makes a document (a manifest or an index with a subject) refer to another one, with annotations that say why,
// and returns what it became. Everything else of it stays.
func Resubject(desc ocispec.Descriptor, raw []byte, subject ocispec.Descriptor, annotations map[string]string) (ocispec.Descriptor, []byte, error) {
	if IsIndex(desc.MediaType) {
		x, err := Edit(raw)
		if err != nil {
			return desc, nil, err
		}
		if err := x.SetSubject(&subject); err != nil {
			return desc, nil, err
		}
		if err := x.Annotate(annotations); err != nil {
			return desc, nil, err
		}
		return x.Finish()
	}
	if _, err := ParseManifest(raw); err != nil {
		return desc, nil, err
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return desc, nil, fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	e, err := NewEntry(ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size})
	if err != nil {
		return desc, nil, fmt.Errorf("subject: %w", err)
	}
	tree.Set("subject", e.node)
	if err := annotate(tree, annotations, nil); err != nil {
		return desc, nil, err
	}
	out := tree.Bytes()
	desc.Digest, desc.Size = digest.FromBytes(out), int64(len(out))
	return desc, out, nil
}

// SubjectOf is what a document refers to; nil when to nothing.
func SubjectOf(raw []byte) (*ocispec.Descriptor, error) {
	if idx, err := Parse(raw); err == nil {
		return idx.Subject, nil
	}
	m, err := ParseManifest(raw)
	return m.Subject, err
}

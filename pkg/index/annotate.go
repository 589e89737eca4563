package index

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// Point returns the entry standing for another manifest: with its digest, size and media type, and all the rest that
// the entry says.
func (e Entry) Point(to ocispec.Descriptor) (Entry, error) { return e.point(to) }

// AnnotateManifest changes annotations of an image's manifest and returns what it became. Docker's manifests have none, and
// are refused.
func AnnotateManifest(desc ocispec.Descriptor, raw []byte, set map[string]string, remove ...string) (ocispec.Descriptor, []byte, error) {
	if _, err := ParseManifest(raw); err != nil {
		return desc, nil, err
	}
	if desc.MediaType == MediaTypeDockerManifest {
		return desc, nil, fmt.Errorf("%w: %s is of Docker's type, which has no annotations: annotate its entry (manifest-descriptor:KEY=VALUE)", ErrInvalidManifest, desc.Digest)
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return desc, nil, fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	before := string(tree.Bytes())
	if err := annotate(tree, set, remove); err != nil {
		return desc, nil, err
	}
	out := tree.Bytes()
	if string(out) == before {
		return desc, raw, nil
	}
	desc.Digest, desc.Size = digest.FromBytes(out), int64(len(out))
	return desc, out, nil
}

package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// maxNesting is how many indexes may stand in one another (ROBUSTNESS.md b07).
const maxNesting = 8

// EntryKind says what an entry of an index is.
type EntryKind string

// The kinds of entries.
const (
	EntryImage       EntryKind = "image"
	EntryAttestation EntryKind = "attestation"
	EntryOther       EntryKind = "other" // an artifact, or of a type not known here
)

// Entry is one manifest that an index leads to.
type Entry struct {
	Desc     ocispec.Descriptor
	Kind     EntryKind
	Platform platform.Platform // of an image: its descriptor's, or its config's where that has none
	Attests  digest.Digest     // of an attestation: the image it describes; "" when it does not say
	Err      error             // why an image's platform is not known
}

// List returns the manifests that img's index and the indexes nested in it lead to, in order, or the single manifest
// that img is. An index that is met twice is listed once.
func List(ctx context.Context, img Image) ([]Entry, error) {
	root := img.Root()
	if !index.IsIndex(root.MediaType) {
		e := Entry{Desc: root, Kind: EntryImage}
		e.Platform, e.Kind, e.Err = platformOf(ctx, img, root)
		return []Entry{e}, nil
	}
	l := lister{img: img, seen: map[digest.Digest]bool{}, path: map[digest.Digest]bool{}}
	if err := l.index(ctx, root); err != nil {
		return nil, err
	}
	return l.entries, nil
}

type lister struct {
	img     Image
	entries []Entry
	seen    map[digest.Digest]bool // indexes
	path    map[digest.Digest]bool // indexes from the root to here
	count   int
}

func (l *lister) index(ctx context.Context, desc ocispec.Descriptor) error {
	switch {
	case l.path[desc.Digest]:
		return fmt.Errorf("%w: cycle at %s", ErrInvalid, desc.Digest)
	case l.seen[desc.Digest]:
		return nil
	case len(l.path) == maxNesting:
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", ErrInvalid, desc.Digest, maxNesting)
	}
	l.seen[desc.Digest], l.path[desc.Digest] = true, true
	defer delete(l.path, desc.Digest)

	idx, err := ReadIndex(ctx, l.img, desc)
	if err != nil {
		return err
	}
	if l.count += len(idx.Manifests); l.count > index.MaxDescriptors {
		return fmt.Errorf("%w: it leads to more than %d manifests", ErrInvalid, index.MaxDescriptors)
	}
	for _, m := range idx.Manifests {
		e := Entry{Desc: m, Kind: EntryImage}
		switch {
		case index.IsAttestation(m):
			e.Kind, e.Attests = EntryAttestation, index.Attests(m)
		case index.IsIndex(m.MediaType):
			if err := l.index(ctx, m); err != nil {
				return err
			}
			continue
		case !index.IsManifest(m.MediaType), m.ArtifactType != "" && !index.IsConfig(m.ArtifactType):
			e.Kind = EntryOther
		case m.Platform != nil && (m.Platform.OS != "" || m.Platform.Architecture != ""):
			var err error
			if e.Platform, err = platform.FromOCI(*m.Platform); err != nil {
				e.Err = invalidPlatform("its descriptor", err)
			}
		default:
			e.Platform, e.Kind, e.Err = platformOf(ctx, l.img, m)
		}
		if e.Err != nil && fatal(e.Err) {
			return e.Err
		}
		l.entries = append(l.entries, e)
	}
	return nil
}

// fatal tells errors of the way (network, cancellation) from those of the thing itself.
func fatal(err error) bool {
	for _, kind := range []error{ErrInvalid, ErrNotFound, ErrCorrupt} {
		if errors.Is(err, kind) {
			return false
		}
	}
	return true
}

// platformOf reads the platform of a manifest from its config.
func platformOf(ctx context.Context, img Image, desc ocispec.Descriptor) (platform.Platform, EntryKind, error) {
	m, _, err := ReadManifest(ctx, img, desc)
	if err != nil {
		return platform.Platform{}, EntryImage, err
	}
	if !index.IsConfig(m.Config.MediaType) {
		return platform.Platform{}, EntryOther, nil
	}
	c, err := ReadConfig(ctx, img, m)
	return c.Platform, EntryImage, err
}

package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// maxDocument is how many bytes a document may have.
const maxDocument = index.MaxSize

// registrySink is a repository.
type registrySink struct {
	env       Env
	client    *registry.Client
	repo      ref.Ref
	pushed    []ref.Ref // other repositories of the host that hold the same by now
	condition Condition
}

var _ sink = (*registrySink)(nil)

func (s *registrySink) close() error { return nil }

func (s *registrySink) same(r ref.Ref) bool {
	return r.Kind == ref.Registry && r.Host == s.repo.Host && r.Repo == s.repo.Repo
}

func (s *registrySink) holds(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return s.client.HasManifest(ctx, s.repo.WithDigest(desc.Digest))
}

func (s *registrySink) local(context.Context, ocispec.Descriptor) ([]byte, bool) { return nil, false }

func (s *registrySink) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return s.client.HasBlob(ctx, s.repo.WithDigest(desc.Digest), desc.Digest)
}

func (s *registrySink) putBlob(ctx context.Context, desc ocispec.Descriptor, open registry.Open, from ref.Ref) (registry.Moved, error) {
	mounts := s.pushed
	likely := len(mounts) > 0
	if mountable(s, from) {
		mounts, likely = append([]ref.Ref{from}, mounts...), true
	}
	return s.client.MoveBlob(ctx, s.repo.WithDigest(desc.Digest), desc, open, mounts, likely)
}

func (s *registrySink) putDocument(ctx context.Context, doc document) error {
	if err := check(doc); err != nil {
		return err
	}
	_, err := s.client.PutManifest(ctx, s.repo.WithDigest(doc.desc.Digest), doc.desc.MediaType, doc.raw, registry.PutOptions{})
	return err
}

// name pushes the roots under their tags: one tag is one push; of several the registry may set all at once.
func (s *registrySink) name(ctx context.Context, named []namedDocument) error {
	if err := s.putSubjects(ctx, named); err != nil {
		return err
	}
	for _, n := range named {
		if err := check(n.document); err != nil {
			return err
		}
		var tags []string
		for _, r := range n.names {
			if r.Tag != "" && !slices.Contains(tags, r.Tag) {
				tags = append(tags, r.Tag)
			}
		}
		if len(tags) != 1 {
			done, listed, err := s.putAll(ctx, n.document, tags)
			if err != nil {
				return err
			}
			if n.subject != "" && !listed {
				if err := s.recordReferrer(ctx, n); err != nil {
					return err
				}
			}
			tags = slices.DeleteFunc(tags, func(t string) bool { return slices.Contains(done, t) })
		}
		for _, tag := range tags {
			if err := s.putTag(ctx, n.document, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// putSubjects pushes the roots that others of them refer to, by digest: some registries take no referrer of what they do
// not have, and a tag is to be the last.
func (s *registrySink) putSubjects(ctx context.Context, named []namedDocument) error {
	subjects := map[digest.Digest]bool{}
	for _, n := range named {
		subjects[n.subject] = n.subject != ""
	}
	for _, n := range named {
		if subjects[n.desc.Digest] {
			subjects[n.desc.Digest] = false
			if err := s.putDocument(ctx, n.document); err != nil {
				return err
			}
		}
	}
	return nil
}

// putAll pushes by digest and asks for the tags with it. It returns those that are set, and whether the registry lists
// the document as a referrer.
func (s *registrySink) putAll(ctx context.Context, doc document, tags []string) (set []string, listed bool, err error) {
	o := registry.PutOptions{}
	if s.condition.IsZero() { // a condition is about one tag
		o.Tags = tags
	}
	res, err := s.client.PutManifest(ctx, s.repo.WithDigest(doc.desc.Digest), doc.desc.MediaType, doc.raw, o)
	return res.Tags, res.Subject != "", err
}

func (s *registrySink) putTag(ctx context.Context, doc document, tag string) error {
	o := registry.PutOptions{IfMatch: s.condition.Match, IfNone: s.condition.None}
	_, err := s.client.PutManifest(ctx, s.repo.WithTag(tag), doc.desc.MediaType, doc.raw, o)
	if errors.Is(err, registry.ErrConflict) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

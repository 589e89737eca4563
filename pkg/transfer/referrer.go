package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// referrerEntry is how a referrer stands in the index of all that refer to one manifest (distribution specification,
// "Listing Referrers"): with its artifactType and its own annotations.
func referrerEntry(doc document) (index.Entry, error) {
	desc := ocispec.Descriptor{MediaType: doc.desc.MediaType, Digest: doc.desc.Digest, Size: doc.desc.Size}
	if index.IsIndex(desc.MediaType) {
		idx, err := index.Parse(doc.raw)
		if err != nil {
			return index.Entry{}, err
		}
		desc.ArtifactType, desc.Annotations = idx.ArtifactType, idx.Annotations
	} else {
		m, err := index.ParseManifest(doc.raw)
		if err != nil {
			return index.Entry{}, err
		}
		desc.ArtifactType, desc.Annotations = m.ArtifactType, m.Annotations
		if desc.ArtifactType == "" {
			desc.ArtifactType = m.Config.MediaType
		}
	}
	if index.IsConfig(desc.ArtifactType) { // an image that refers to another; here it stands for no platform
		desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	}
	return index.NewEntry(desc)
}

// recordReferrer names a referrer in a registry that has no list of them.
func (s *registrySink) recordReferrer(ctx context.Context, n namedDocument) error {
	e, err := referrerEntry(n.document)
	if err != nil {
		return fmt.Errorf("referrer %s: %w", n.desc.Digest, err)
	}
	tag := s.repo.WithTag(registry.ReferrersTag(n.subject))
	_, err = Append(ctx, s.env, tag, []index.Entry{e}, AppendOptions{})
	return err
}

// referrerIndexes are the indexes of the referrers among named, by subject, with what old has of them already.
func referrerIndexes(named []namedDocument, old func(tag string) ([]byte, error)) ([]namedDocument, error) {
	editors := map[digest.Digest]*index.Editor{}
	var order []digest.Digest
	for _, n := range named {
		if n.subject == "" {
			continue
		}
		x := editors[n.subject]
		if x == nil {
			raw, err := old(registry.ReferrersTag(n.subject))
			if err != nil {
				return nil, err
			}
			if raw == nil {
				x, err = index.NewEditor(index.Options{})
			} else {
				x, err = index.Edit(raw)
			}
			if err != nil {
				return nil, err
			}
			editors[n.subject] = x
			order = append(order, n.subject)
		}
		e, err := referrerEntry(n.document)
		if err != nil {
			return nil, fmt.Errorf("referrer %s: %w", n.desc.Digest, err)
		}
		if err := x.Add(e, false); err != nil {
			return nil, err
		}
	}
	var out []namedDocument
	for _, subject := range order {
		desc, raw, err := editors[subject].Finish()
		if err != nil {
			return nil, err
		}
		tag := ref.Ref{Kind: ref.OCILayout, Tag: registry.ReferrersTag(subject)}
		out = append(out, namedDocument{document: document{desc, raw}, names: []ref.Ref{tag}})
	}
	return out, nil
}

// withoutReferrers are the documents that have names of their own.
func withoutReferrers(named []namedDocument) []namedDocument {
	var out []namedDocument
	for _, n := range named {
		if n.subject == "" {
			out = append(out, n)
		}
	}
	return out
}

// tagged returns the bytes of what a layout has under a tag; nil when there is nothing.
func tagged(ctx context.Context, opener *source.Opener, r ref.Ref) ([]byte, error) {
	img, err := opener.Open(ctx, r)
	if errors.Is(err, source.ErrNotFound) || errors.Is(err, source.ErrInvalid) { // no such tag, or no layout yet
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := img.Manifest(ctx, img.Root())
	return raw, errors.Join(err, img.Close())
}

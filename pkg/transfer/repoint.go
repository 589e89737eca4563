package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// ArtifactOriginal is the artifactType of the referrer that carries the exact bytes of the index of which platforms were
// left out, as its only layer. With it, what was signed is still there: a verifier checks the signature of the whole
// index and compares entries.
const ArtifactOriginal = "application/vnd.io.github.manifestctl.original-index.v1"

// emptyConfig is what artifacts have for a config (image specification, "Guidance for an Empty Descriptor").
var emptyConfig = []byte("{}")

// made is a source of what was made here.
type made map[digest.Digest][]byte

var _ Source = made{}

func (m made) add(mediaType string, raw []byte) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	m[d] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func (m made) Ref() ref.Ref { return ref.Ref{} }

func (m made) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	raw, ok := m[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: %s was not made here", source.ErrNotFound, desc.Digest)
	}
	return raw, nil
}

func (m made) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := m.Manifest(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

// repoint returns what refers to an index that was written anew, as it refers to the new one: referrers get another
// subject, with an annotation of what they were. When there are any, or signatures under cosign's tags, the original
// goes along as a referrer of its own, and the signatures stay about it.
func (f *relatedFinder) repoint(ctx context.Context, original ocispec.Descriptor, raw []byte, to ocispec.Descriptor, dst ref.Ref) ([]Root, error) {
	out, err := f.resubject(ctx, original.Digest, to, dst, map[digest.Digest]bool{original.Digest: true}, 0)
	if err != nil {
		return nil, err
	}
	signatures, err := f.cosign(ctx, original.Digest, dst)
	if err != nil {
		return nil, err
	}
	if len(out)+len(signatures) == 0 {
		return nil, nil
	}
	carrier, err := carry(original, raw, to, dst)
	if err != nil {
		return nil, err
	}
	f.m.note("the whole index %s goes along as a referrer of the new one: signature tags that stay about it: %d; referrers that are about the new one now: %d",
		original.Digest, len(signatures), len(out))
	return append(append([]Root{carrier}, signatures...), out...), nil
}

// resubject makes what refers to old refer to to, and what refers to that to what it became. What is in seen was done: a
// manifest has one subject, and a registry that lists it for more must not lead in circles.
func (f *relatedFinder) resubject(ctx context.Context, old digest.Digest, to ocispec.Descriptor, dst ref.Ref, seen map[digest.Digest]bool, depth int) ([]Root, error) {
	list, err := f.referrers(ctx, old)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		had := seen[d.Digest]
		seen[d.Digest] = true
		return had
	})
	if depth == maxRelated && len(list) > 0 {
		return nil, f.tooLong(old)
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	var out []Root
	for _, desc := range list {
		r, err := f.open(ctx, f.from.WithDigest(desc.Digest))
		if errors.Is(err, source.ErrNotFound) {
			f.m.note("%s, which refers to %s, is missing in %s: left out", desc.Digest, old, f.from)
			continue
		}
		if err != nil {
			return nil, err
		}
		raw, err := r.From.Manifest(ctx, r.Desc)
		if err != nil {
			return nil, err
		}
		now, raw, err := index.Resubject(r.Desc, raw, to, map[string]string{AnnotationOriginal: r.Desc.Digest.String()})
		if err != nil {
			return nil, fmt.Errorf("%s, which refers to %s: %w", desc.Digest, old, err)
		}
		was := r.Desc.Digest
		r.Desc, r.Raw = now, raw
		r.Names, r.Subject = []ref.Ref{dst.WithDigest(now.Digest)}, to.Digest
		out = append(out, r)
		more, err := f.resubject(ctx, was, now, dst, seen, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// carry makes the referrer of to that holds the original.
func carry(original ocispec.Descriptor, raw []byte, to ocispec.Descriptor, dst ref.Ref) (Root, error) {
	from := made{}
	subject := ocispec.Descriptor{MediaType: to.MediaType, Digest: to.Digest, Size: to.Size}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactOriginal,
		Config:       from.add(ocispec.MediaTypeEmptyJSON, emptyConfig),
		Layers:       []ocispec.Descriptor{{MediaType: ArtifactOriginal + "+json", Digest: original.Digest, Size: int64(len(raw))}},
		Subject:      &subject,
		Annotations:  map[string]string{AnnotationOriginal: original.Digest.String()},
	}
	from[original.Digest] = raw
	doc, err := jsontree.Marshal(m)
	if err != nil {
		return Root{}, err
	}
	desc := from.add(ocispec.MediaTypeImageManifest, doc)
	return Root{Desc: desc, Raw: doc, From: from, Names: []ref.Ref{dst.WithDigest(desc.Digest)}, Subject: to.Digest}, nil
}

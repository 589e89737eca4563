package edit

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// followers makes what describes images of an index describe what they became: entries by BuildKit's annotation, and
// manifests by their subject.
func (t *tree) followers(ctx context.Context, x *index.Editor, renamed map[digest.Digest]ocispec.Descriptor) error {
	if len(renamed) == 0 {
		return nil
	}
	for i, e := range x.Entries() {
		if e.IsImage() || index.IsIndex(e.MediaType) {
			continue
		}
		if now, ok := renamed[index.Attests(e.Descriptor)]; ok {
			changed, err := e.Annotate(map[string]string{index.AnnotationReferenceDigest: now.Digest.String()})
			if err != nil {
				return err
			}
			if err := x.Set(i, changed); err != nil {
				return err
			}
			t.note("the attestation %s describes its image as it was before the edit", e.Digest)
			e = changed
		}
		if !index.IsManifest(e.MediaType) {
			continue
		}
		m, raw, err := source.ReadManifest(ctx, t.img, e.Descriptor)
		if err != nil {
			return err
		}
		if m.Subject == nil {
			continue
		}
		now, ok := renamed[m.Subject.Digest]
		if !ok {
			continue
		}
		desc, out, err := resubject(raw, now)
		if err != nil {
			return err
		}
		t.content.docs[desc.Digest] = out
		t.changed[e.Digest] = desc
		if err := setEntry(x, i, e, desc); err != nil {
			return err
		}
	}
	return nil
}

// resubject makes a manifest be about another.
func resubject(raw []byte, now ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	x, err := image.EditManifest(raw)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if err := x.SetSubject(now); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return x.Finish()
}

// referrers are the roots of what refers to images that became others: pointed at what those are now. Signatures stay
// behind, for they would be wrong.
func (t *tree) referrers(ctx context.Context, env transfer.Env, names []ref.Ref) ([]transfer.Root, error) {
	if t.o.NoReferrers || len(t.changed) == 0 {
		return nil, nil
	}
	var old []ocispec.Descriptor
	for d := range t.changed {
		old = append(old, ocispec.Descriptor{Digest: d})
	}
	slices.SortFunc(old, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	found, err := transfer.Related(ctx, env, t.img, old)
	if err != nil {
		return nil, err
	}
	var out []transfer.Root
	left := map[digest.Digest]int{}
	for _, r := range found {
		if r.Subject == "" || isSignature(r.Desc) || !index.IsManifest(r.Desc.MediaType) {
			left[r.Of]++
			continue
		}
		if _, moved := t.changed[r.Desc.Digest]; moved { // an entry of the index
			continue
		}
		raw, err := r.From.Manifest(ctx, r.Desc)
		if err != nil {
			return nil, err
		}
		now := t.changed[r.Subject]
		desc, raw, err := resubject(raw, now)
		if err != nil {
			return nil, err
		}
		t.content.docs[desc.Digest] = raw
		root := transfer.Root{Desc: desc, Raw: raw, From: related{t.content, r.From}, Subject: now.Digest}
		for _, n := range names {
			if n.Kind == ref.DockerArchive || n.Kind == ref.Store {
				continue
			}
			root.Names = append(root.Names, n.WithDigest(desc.Digest))
		}
		if len(root.Names) > 0 {
			out = append(out, root)
		}
	}
	for d, n := range left {
		t.note("%d signatures of %s stay with it: sign %s", n, d, t.changed[d].Digest)
	}
	return out, nil
}

// related is a referrer that points elsewhere now: the rest of it is where it was.
type related struct {
	*content
	from transfer.Source
}

// Origin implements transfer.Composite.
func (r related) Origin(d digest.Digest) transfer.Source {
	if r.docs[d] != nil {
		return here{r.content}
	}
	return r.from
}

// Blob implements transfer.Source.
func (r related) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return r.from.Blob(ctx, desc)
}

// isSignature reports whether a referrer vouches for the very digest it refers to.
func isSignature(desc ocispec.Descriptor) bool {
	for _, t := range []string{"vnd.dev.cosign", "vnd.dev.sigstore", "vnd.cncf.notary"} {
		if strings.Contains(desc.ArtifactType, t) {
			return true
		}
	}
	return false
}

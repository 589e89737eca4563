package transfer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func isRelatedTag(tag string) bool {
	_, _, ok := source.RelatedTag(tag)
	return ok
}

// cosignTag is what cosign's tags of a digest begin with.
func cosignTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// maxRelated is how long a chain of manifests that refer to one another may be. Nothing that people make comes near
// it; it is there because a registry can invent chains without an end.
const maxRelated = 64

// tooLong is the error of a longer chain: a copy without its end would be one that lost evidence and did not say so.
func (f *relatedFinder) tooLong(d digest.Digest) error {
	return fmt.Errorf("%w: what refers to %s in %s stands in a chain of more than %d referrers: leave referrers out, or remove some there",
		source.ErrInvalid, d, f.from, maxRelated)
}

// relatedFinder looks for what refers to digests in one source.
type relatedFinder struct {
	m     *mover
	from  ref.Ref // without tag
	other bool    // it looks at the destination, and not at the source

	asking      sync.Mutex // guards tagsKnown to unsupported
	tagsKnown   bool
	tags        map[string]bool
	unsupported bool // the registry has no list of referrers
}

// withRelated adds what refers to the roots, and to what they reach, in front of them: a reader who sees the image finds its signature.
// What lies where it is going already is left out, unless all is to be taken along.
func (m *mover) withRelated(ctx context.Context, roots []Root, all bool) ([]Root, error) {
	finders := map[ref.Ref]*relatedFinder{}
	seen := map[string]bool{} // digests, for each place that they go to
	named := map[string]bool{}
	var related []Root
	add := func(found []Root) {
		for _, r := range found {
			if n := r.Names[0].String(); !named[n] {
				named[n] = true
				related = append(related, r)
			}
		}
	}
	for _, r := range roots {
		img, ok := r.From.(source.Image)
		if !ok || r.Names[0].Kind == ref.DockerArchive {
			continue
		}
		dst := r.Names[0]
		from := img.Ref().WithTag("")
		f := finders[from]
		if f == nil {
			f = &relatedFinder{m: m, from: img.Ref()}
			finders[from] = f
		}
		if original := img.Root(); original.Digest != r.Desc.Digest && r.Raw != nil && index.IsIndex(r.Desc.MediaType) {
			raw, err := img.Manifest(ctx, original)
			if err != nil {
				return nil, err
			}
			found, err := f.repoint(ctx, original, raw, r.Desc, dst)
			if err != nil {
				return nil, err
			}
			add(found)
		}
		if !all && sameNames(img.Ref(), dst) { // it is there already
			continue
		}
		level, err := m.reached(ctx, r)
		if err != nil {
			return nil, err
		}
		for depth := 0; len(level) > 0; depth++ {
			level = slices.DeleteFunc(level, func(d ocispec.Descriptor) bool {
				key := dst.WithDigest(d.Digest).String()
				had := seen[key]
				seen[key] = true
				return had
			})
			found, err := f.find(ctx, level, dst)
			if err != nil {
				return nil, err
			}
			if depth == maxRelated && len(found) > 0 {
				return nil, f.tooLong(level[0].Digest)
			}
			level = nil
			add(found)
			for _, r := range found {
				level = append(level, r.Desc)
			}
		}
	}
	return append(related, roots...), nil
}

// find returns what refers to digests, as roots.
func (f *relatedFinder) find(ctx context.Context, of []ocispec.Descriptor, dst ref.Ref) ([]Root, error) {
	found := make([][]Root, len(of))
	g, gctx := errgroup.WithContext(ctx)
	for i, d := range of {
		if i == 0 { // it tells whether to ask for the others
			var err error
			if found[i], err = f.one(ctx, d.Digest, dst); err != nil {
				return nil, err
			}
			continue
		}
		g.Go(func() (err error) {
			found[i], err = f.one(gctx, d.Digest, dst)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

// one returns what refers to d.
func (f *relatedFinder) one(ctx context.Context, d digest.Digest, dst ref.Ref) ([]Root, error) {
	var out []Root
	list, err := f.referrers(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, desc := range list {
		r, err := f.open(ctx, f.from.WithDigest(desc.Digest))
		if errors.Is(err, source.ErrNotFound) {
			f.m.note("%s, which refers to %s, is missing in %s: left out", desc.Digest, d, f.from)
			continue
		}
		if err != nil {
			return nil, err
		}
		r.Names, r.Subject = []ref.Ref{dst.WithDigest(desc.Digest)}, d
		r.Desc.Annotations, r.Desc.ArtifactType = desc.Annotations, desc.ArtifactType
		out = append(out, r)
	}
	signatures, err := f.cosign(ctx, d, dst)
	out = append(out, signatures...)
	slices.SortFunc(out, func(a, b Root) int { return strings.Compare(a.Names[0].String(), b.Names[0].String()) })
	return out, err
}

// cosign returns what stands under cosign's tags of d.
func (f *relatedFinder) cosign(ctx context.Context, d digest.Digest, dst ref.Ref) ([]Root, error) {
	tags, err := f.allTags(ctx)
	if err != nil {
		return nil, err
	}
	var out []Root
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if of, kind, ok := source.RelatedTag(tag); !ok || kind == "" || of != cosignTag(d) {
			continue
		}
		r, err := f.open(ctx, f.from.WithTag(tag))
		if err != nil {
			return nil, err
		}
		r.Names = []ref.Ref{dst.WithTag(tag)}
		out = append(out, r)
	}
	return out, nil
}

// sameNames reports whether what refers to an image in a is found from b without being copied.
func sameNames(a, b ref.Ref) bool {
	return placeKey(a) == placeKey(b) && (a.Kind != ref.Store || a.Name == b.Name)
}

func (f *relatedFinder) open(ctx context.Context, r ref.Ref) (Root, error) {
	leave, err := slot(ctx, f.m.requests)
	if err != nil {
		return Root{}, err
	}
	defer leave()
	img, err := f.m.env.opener().Open(ctx, r)
	if err != nil {
		return Root{}, err
	}
	f.m.count(func(*Report) { f.m.opened = append(f.m.opened, img) })
	desc := img.Root()
	desc.Platform = nil
	return Root{Desc: desc, From: img}, nil
}

// referrers lists the manifests whose subject is d.
func (f *relatedFinder) referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	if f.from.Kind == ref.Registry && !f.noList() {
		leave, err := slot(ctx, f.m.requests)
		if err != nil {
			return nil, err
		}
		list, supported, err := f.m.env.Registry.Referrers(ctx, f.from, d)
		leave()
		if err != nil {
			return nil, err
		}
		if supported {
			return checked(list)
		}
		f.asking.Lock()
		f.unsupported = true
		f.asking.Unlock()
	}
	if f.from.Kind == ref.Store {
		return f.inStore(ctx, d)
	}
	tags, err := f.allTags(ctx)
	if err != nil || !tags[registry.ReferrersTag(d)] {
		return nil, err
	}
	r, err := f.open(ctx, f.from.WithTag(registry.ReferrersTag(d)))
	if err != nil {
		return nil, err
	}
	raw, err := r.From.Manifest(ctx, r.Desc)
	if err != nil {
		return nil, err
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("the referrers of %s: %w", d, err)
	}
	return idx.Manifests, nil
}

// inStore finds referrers among the manifests that the store holds under NAME@DIGEST.
func (f *relatedFinder) inStore(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	refs, err := f.m.env.Store.Refs()
	if err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, r := range refs {
		n, err := ref.Parse("store:" + r.Name)
		if err != nil || n.Name != f.from.Name || n.Digest == "" || n.Digest == d {
			continue
		}
		raw, err := f.m.env.Store.ReadAll(ctx, r.Desc, maxDocument)
		if err != nil {
			return nil, err
		}
		subject, _ := index.SubjectOf(raw) // of what is no document: none
		if subject != nil && subject.Digest == d {
			out = append(out, r.Desc)
		}
	}
	return out, nil
}

func checked(list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	for _, d := range list {
		if err := index.CheckDescriptor(d); err != nil {
			return nil, fmt.Errorf("%w: a referrer: %w", source.ErrInvalid, err)
		}
	}
	return list, nil
}

func (f *relatedFinder) noList() bool {
	f.asking.Lock()
	defer f.asking.Unlock()
	return f.unsupported
}

// allTags lists the tags of the source once.
func (f *relatedFinder) allTags(ctx context.Context) (map[string]bool, error) {
	f.asking.Lock()
	defer f.asking.Unlock()
	if f.tagsKnown {
		return f.tags, nil
	}
	list, err := f.m.o.SourceTags, error(nil)
	if list == nil || f.other {
		list, err = f.m.env.opener().Tags(ctx, f.from)
	}
	if errors.Is(err, source.ErrNotFound) || errors.Is(err, registry.ErrDenied) {
		f.m.note("the tags of %s cannot be listed: cosign's signatures are not looked for", f.from)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	f.tags, f.tagsKnown = map[string]bool{}, true
	for _, t := range list {
		f.tags[t] = true
	}
	return f.tags, nil
}

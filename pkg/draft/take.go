package draft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// takeParallel is how many sources, and how many manifests of each, are read at once.
const takeParallel = 8

// Source is what a reference gave: the entries that it adds to an index. Their content is in the store, or the store
// knows where it lies.
type Source struct {
	Ref     ref.Ref
	Root    ocispec.Descriptor
	Entries []index.Entry
	Notes   []string // contradictions that were asked for
}

// TakeOptions tunes Take. The zero value takes everything, indexes apart.
type TakeOptions struct {
	Platforms   []string            // patterns as [platform.Match] reads them; none: all
	Nested      bool                // an index stays one entry
	Platform    index.PlatformPatch // of a single image: instead of what it says itself; of an index: which entries
	Annotations map[string]string   // of every image's entry
}

// Take opens sources and takes over what an index of them needs: manifests and configs from registries, everything from
// layouts and archives. The platform of an entry is its descriptor's, else its config's; that they contradict each other
// is an error of kind [source.ErrInvalid] that names both.
func (d *Drafts) Take(ctx context.Context, refs []ref.Ref, o TakeOptions) ([]Source, error) {
	for _, pattern := range o.Platforms {
		if _, err := platform.Match(pattern, platform.Platform{OS: "linux", Arch: "amd64"}); err != nil {
			return nil, err
		}
	}
	out := make([]Source, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(takeParallel)
	for i, r := range refs {
		g.Go(func() (err error) {
			out[i], err = d.take(gctx, r, o)
			return err
		})
	}
	return out, g.Wait()
}

func (d *Drafts) take(ctx context.Context, r ref.Ref, o TakeOptions) (_ Source, err error) {
	img, err := d.Opener.Open(ctx, r)
	if err != nil {
		return Source{}, d.explain(r, err)
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	t := taking{d: d, img: img, o: o, src: Source{Ref: r, Root: img.Root()}, seen: map[digest.Digest]bool{}}
	if err := t.run(ctx); err != nil {
		return Source{}, fmt.Errorf("%s: %w", r, err)
	}
	return t.src, nil
}

// explain adds the hint that is most often needed: the name is in the store and not in the registry.
func (d *Drafts) explain(r ref.Ref, err error) error {
	if r.Kind != ref.Registry || r.Digest != "" {
		return err
	}
	if _, serr := d.Store.GetRef(r.Familiar()); serr == nil {
		return fmt.Errorf("%w (the store has it: write store:%s)", err, r.Familiar())
	}
	return err
}

// taking is one source being taken.
type taking struct {
	d   *Drafts
	img source.Image
	o   TakeOptions
	src Source

	seen map[digest.Digest]bool // nested indexes
}

func (t *taking) run(ctx context.Context) error {
	root := t.src.Root
	bare := ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size, Platform: root.Platform, ArtifactType: root.ArtifactType}
	single := !index.IsIndex(root.MediaType)
	switch {
	case single || t.o.Nested:
		e, err := index.NewEntry(bare)
		if err != nil {
			return err
		}
		t.src.Entries = []index.Entry{e}
	default:
		raw, err := t.img.Manifest(ctx, root)
		if err != nil {
			return err
		}
		if t.src.Entries, err = index.Expand(ctx, raw, t.img.Manifest); err != nil {
			return err
		}
	}
	patch := t.o.Platform
	if !single {
		if err := t.choose(patch); err != nil {
			return err
		}
		patch = index.PlatformPatch{}
	}
	notes := make([]string, len(t.src.Entries))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(takeParallel)
	for i, e := range t.src.Entries {
		g.Go(func() (err error) {
			t.src.Entries[i], notes[i], err = t.entry(gctx, e, patch)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	t.src.Notes = slices.DeleteFunc(notes, func(n string) bool { return n == "" })
	return t.filter()
}

// entry takes over one entry of an index, or the single image.
func (t *taking) entry(ctx context.Context, e index.Entry, patch index.PlatformPatch) (index.Entry, string, error) {
	note := ""
	switch {
	case index.IsIndex(e.MediaType):
		if err := t.keepIndex(ctx, e.Descriptor, 0); err != nil {
			return e, "", err
		}
	case !index.IsManifest(e.MediaType) || index.IsAttestation(e.Descriptor):
		if _, err := t.keepManifest(ctx, e.Descriptor); err != nil {
			return e, "", err
		}
	default:
		m, err := t.keepManifest(ctx, e.Descriptor)
		if err != nil {
			return e, "", err
		}
		if e, note, err = t.understand(ctx, e, m, patch); err != nil {
			return e, "", err
		}
	}
	if len(t.o.Annotations) == 0 || index.IsAttestation(e.Descriptor) {
		return e, note, nil
	}
	e, err := e.Annotate(t.o.Annotations)
	return e, note, err
}

// understand gives an image its platform, and an artifact its type.
func (t *taking) understand(ctx context.Context, e index.Entry, m ocispec.Manifest, patch index.PlatformPatch) (index.Entry, string, error) {
	if !index.IsConfig(m.Config.MediaType) || m.ArtifactType != "" {
		if e.ArtifactType == "" {
			kind := m.ArtifactType
			if kind == "" {
				kind = m.Config.MediaType
			}
			var err error
			if e, err = e.SetArtifactType(kind); err != nil {
				return e, "", err
			}
		}
		e, err := e.SetPlatform(patch)
		return e, "", err
	}
	config, err := source.ReadConfig(ctx, t.img, m)
	if err != nil && (patch.Arch == nil || config.Raw == nil) {
		return e, "", err
	}
	if err := t.d.put(ctx, m.Config, config.Raw); err != nil {
		return e, "", err
	}
	if err != nil { // the config does not say, and somebody did
		e, perr := e.SetPlatform(patch)
		return e, "", perr
	}
	if patch.IsZero() {
		if _, err := source.Agree(e.Descriptor, config); err != nil {
			return e, "", err
		}
	}
	if e.Platform == nil || e.Platform.OS == "" && e.Platform.Architecture == "" {
		c := config.Image.Platform
		if e, err = e.SetPlatform(index.PatchOf(c)); err != nil {
			return e, "", err
		}
	}
	if patch.IsZero() {
		return e, "", nil
	}
	if e, err = e.SetPlatform(patch); err != nil {
		return e, "", err
	}
	note := ""
	if _, err := source.Agree(e.Descriptor, config); err != nil {
		note = "warning: " + err.Error()
	}
	return e, note, nil
}

// choose leaves the entries of an index that a platform, of which only parts may be given, means.
func (t *taking) choose(p index.PlatformPatch) error {
	if p.IsZero() {
		return nil
	}
	part := func(s *string) string {
		if s == nil || *s == "" {
			return "*"
		}
		return *s
	}
	pattern := part(p.OS) + "/" + part(p.Arch)
	if p.Variant != nil && *p.Variant != "" {
		pattern += "/" + *p.Variant
	}
	if _, err := platform.Match(pattern, platform.Platform{OS: "linux", Arch: "amd64"}); err != nil {
		return err
	}
	t.o.Platforms = append(slices.Clone(t.o.Platforms), pattern)
	return nil
}

// filter leaves the platforms that were asked for, with their attestations.
func (t *taking) filter() error {
	if len(t.o.Platforms) == 0 {
		return nil
	}
	kept := map[digest.Digest]bool{}
	var have []string
	fits := func(e index.Entry) bool {
		if !e.IsImage() || e.Platform == nil {
			return false
		}
		p, err := platform.FromOCI(*e.Platform)
		if err != nil {
			return false
		}
		have = append(have, p.String())
		for _, pattern := range t.o.Platforms {
			if ok, err := platform.Match(pattern, p); ok && err == nil {
				return true
			}
		}
		return false
	}
	images := map[int]bool{}
	for i, e := range t.src.Entries {
		if fits(e) {
			images[i], kept[e.Digest] = true, true
		}
	}
	if len(images) == 0 {
		return fmt.Errorf("%w: no image for %s; there are %s", source.ErrNotFound, strings.Join(t.o.Platforms, ", "), strings.Join(have, ", "))
	}
	var out []index.Entry
	for i, e := range t.src.Entries {
		if images[i] || index.IsAttestation(e.Descriptor) && kept[index.Attests(e.Descriptor)] {
			out = append(out, e)
		}
	}
	t.src.Entries = out
	return nil
}

// keepIndex takes over a nested index and all that it leads to.
func (t *taking) keepIndex(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if depth > index.MaxNesting {
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, desc.Digest, index.MaxNesting)
	}
	if t.seen[desc.Digest] {
		return nil
	}
	t.seen[desc.Digest] = true
	idx, err := source.ReadIndex(ctx, t.img, desc)
	if err != nil {
		return err
	}
	for _, m := range idx.Manifests {
		if index.IsIndex(m.MediaType) {
			err = t.keepIndex(ctx, m, depth+1)
		} else {
			_, err = t.keepManifest(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	return t.keep(ctx, desc, idx.Raw)
}

// keepManifest takes over a manifest, of any type, and from places that are no registry its blobs.
func (t *taking) keepManifest(ctx context.Context, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	if !index.IsManifest(desc.MediaType) {
		raw, err := t.img.Manifest(ctx, desc)
		if err != nil {
			return ocispec.Manifest{}, err
		}
		return ocispec.Manifest{}, t.keep(ctx, desc, raw)
	}
	m, raw, err := source.ReadManifest(ctx, t.img, desc)
	if err != nil {
		return m, err
	}
	if k := t.src.Ref.Kind; k != ref.Registry && k != ref.Store {
		for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if err := t.copy(ctx, b); err != nil {
				return m, err
			}
		}
	}
	return m, t.keep(ctx, desc, raw)
}

// keep puts a document into the store, and remembers where what it names lies.
func (t *taking) keep(ctx context.Context, desc ocispec.Descriptor, raw []byte) error {
	if err := t.d.put(ctx, desc, raw); err != nil {
		return err
	}
	if t.src.Ref.Kind != ref.Registry {
		return nil
	}
	place := t.src.Ref
	place.Digest = desc.Digest
	return t.d.Store.AddOrigin(ctx, desc.Digest, place.String())
}

// copy brings a blob into the store.
func (t *taking) copy(ctx context.Context, desc ocispec.Descriptor) error {
	_, err := t.d.Store.Stat(desc.Digest)
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	rc, err := t.img.Blob(ctx, desc)
	if errors.Is(err, source.ErrNotFound) && len(desc.URLs) > 0 {
		return nil // a foreign layer, fetched elsewhere
	}
	if err != nil {
		return err
	}
	return errors.Join(t.d.Store.PutExpected(ctx, desc, rc), rc.Close())
}

func (d *Drafts) put(ctx context.Context, desc ocispec.Descriptor, raw []byte) error {
	if _, err := d.Store.Stat(desc.Digest); err == nil {
		return nil
	}
	return d.Store.PutExpected(ctx, desc, bytes.NewReader(raw))
}

// Adding is the edit, for Update, that adds the entries of sources. With replace a new image for a platform takes the
// place of the old one.
func Adding(sources []Source, replace bool) func(*index.Editor) error {
	return func(x *index.Editor) error {
		for _, s := range sources {
			for _, e := range s.Entries {
				if err := x.Add(e, replace); err != nil {
					return fmt.Errorf("adding %s: %w", s.Ref, err)
				}
			}
		}
		return nil
	}
}

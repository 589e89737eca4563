package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// MergeSource is one image or index that goes into an index.
type MergeSource struct {
	Ref ref.Ref
	// Platform changes that of the entry; for a source that is a single image.
	Platform index.PlatformPatch
	// Optional sources may be missing.
	Optional bool
}

// MergeOptions tunes Merge. The zero value is the recommended one.
type MergeOptions struct {
	Options
	Append      bool // add to what the tags hold now; see [Append]
	Replace     bool // of two images for a platform the later one counts; else that is an error
	Nested      bool // a source that is an index stays one
	Docker      bool // a Docker manifest list
	Single      bool // a lone source that is a single image is copied as it is, and no index is made
	Annotations []Annotation
	Pause       func(ctx context.Context, n int) error // see [AppendOptions]
}

// Merged is what Merge made.
type Merged struct {
	Report
	Desc ocispec.Descriptor
	Raw  []byte
}

// Merge makes one index of sources and pushes it under names. A source that is an index is taken apart. A lone source
// that is an index and that nothing is changed of keeps its bytes.
func Merge(ctx context.Context, env Env, names []ref.Ref, sources []MergeSource, o MergeOptions) (_ Merged, err error) {
	m := &merger{env: env, o: o, m: newMover(env, o.Options)}
	before := env.requests()
	defer func() {
		for _, img := range m.images {
			if img != nil {
				err = errors.Join(err, img.Close())
			}
		}
	}()
	done, err := m.merge(ctx, names, sources)
	done.Requests += env.requests() - before
	return done, err
}

type merger struct {
	env    Env
	o      MergeOptions
	m      *mover
	images []source.Image // by source; nil where it is missing
	parts  map[digest.Digest]Source
}

func (m *merger) merge(ctx context.Context, names []ref.Ref, sources []MergeSource) (Merged, error) {
	var done Merged
	if len(names) == 0 {
		return done, fmt.Errorf("%w: there is no destination", ErrInvalid)
	}
	if m.o.Append && !m.o.Condition.IsZero() { // else the move looks at it
		for _, n := range names {
			if n.Kind != ref.Registry {
				return done, fmt.Errorf("%w: a condition is for tags of registries only", ErrInvalid)
			}
			if n.Tag == "" {
				continue
			}
			if err := m.o.Condition.check(ctx, m.env.Registry, n); err != nil {
				return done, err
			}
		}
	}
	if err := m.open(ctx, sources); err != nil {
		return done, err
	}
	entries, err := m.entries(ctx, sources)
	if err != nil {
		return done, err
	}
	if m.o.Append {
		return m.append(ctx, names, entries)
	}
	root, err := m.root(ctx, sources, entries)
	if err != nil {
		return done, err
	}
	root.Names = names
	done.Desc, done.Raw = root.Desc, root.Raw
	if done.Raw == nil {
		if done.Raw, err = root.From.Manifest(ctx, root.Desc); err != nil {
			return done, err
		}
	}
	err = m.m.move(ctx, []Root{root})
	done.Report = m.m.report
	return done, err
}

// open opens the sources, all at once.
func (m *merger) open(ctx context.Context, sources []MergeSource) error {
	m.images = make([]source.Image, len(sources))
	opener := m.env.opener()
	g, gctx := errgroup.WithContext(ctx)
	for i, s := range sources {
		g.Go(func() error {
			leave, err := slot(gctx, m.m.requests)
			if err != nil {
				return err
			}
			defer leave()
			img, err := opener.Open(gctx, s.Ref)
			if errors.Is(err, source.ErrNotFound) && s.Optional {
				m.m.note("%s is missing: left out", s.Ref)
				return nil
			}
			m.images[i] = img
			return err
		})
	}
	return g.Wait()
}

// part is an entry and where it is read.
type part struct {
	index.Entry
	from Source
}

// entries makes the entries of all sources, in their order.
func (m *merger) entries(ctx context.Context, sources []MergeSource) ([]part, error) {
	all := make([][]part, len(sources))
	g, gctx := errgroup.WithContext(ctx)
	for i, s := range sources {
		if m.images[i] == nil {
			continue
		}
		g.Go(func() (err error) {
			if all[i], err = m.entriesOf(gctx, m.images[i], s); err != nil {
				err = fmt.Errorf("%s: %w", s.Ref, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := slices.Concat(all...)
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no source has an image%s", source.ErrNotFound, forPlatforms(m.o.Platforms))
	}
	return m.annotate(ctx, out)
}

func forPlatforms(ps []platform.Platform) string {
	if len(ps) == 0 {
		return ""
	}
	return " for " + platformNames(ps)
}

// entriesOf makes the entries of one source.
func (m *merger) entriesOf(ctx context.Context, img source.Image, s MergeSource) ([]part, error) {
	root := img.Root()
	var entries []index.Entry
	switch {
	case !index.IsIndex(root.MediaType):
		leave, err := slot(ctx, m.m.requests)
		if err != nil {
			return nil, err
		}
		e, err := m.single(ctx, img, s)
		leave()
		if err != nil {
			return nil, err
		}
		entries = []index.Entry{e}
	case m.o.Nested:
		if !s.Platform.IsZero() {
			return nil, fmt.Errorf("%w: a nested index has no platform", ErrInvalid)
		}
		e, err := index.NewEntry(ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size})
		return []part{{e, img}}, err
	default:
		raw, err := img.Manifest(ctx, root)
		if err != nil {
			return nil, err
		}
		if entries, err = index.Expand(ctx, raw, img.Manifest); err != nil {
			return nil, err
		}
		if !s.Platform.IsZero() {
			if entries, err = patchOnly(entries, s.Platform); err != nil {
				return nil, err
			}
		}
		if entries, err = m.complete(ctx, img, entries); err != nil {
			return nil, err
		}
	}
	flat := &index.Index{}
	for _, e := range entries {
		flat.Manifests = append(flat.Manifests, e.Descriptor)
	}
	var out []part
	for _, e := range entries {
		if len(m.o.Platforms) == 0 || wanted(m.o.Platforms, flat, e.Descriptor) {
			out = append(out, part{e, img})
		}
	}
	return out, nil
}

// single makes the entry of a single image. What its config says need not be asked for when the caller says it all.
func (m *merger) single(ctx context.Context, img source.Image, s MergeSource) (index.Entry, error) {
	e, err := imageEntry(ctx, img)
	if err != nil {
		return e, err
	}
	return e.SetPlatform(s.Platform)
}

// patchOnly changes the platform of the only image among entries.
func patchOnly(entries []index.Entry, p index.PlatformPatch) ([]index.Entry, error) {
	at := -1
	for i, e := range entries {
		if !e.IsImage() {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("%w: it is an index of several images: a platform cannot be set for all", ErrInvalid)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: it is an index without an image", ErrInvalid)
	}
	var err error
	entries[at], err = entries[at].SetPlatform(p)
	return entries, err
}

// complete gives the images whose entries say no platform that of their configs.
func (m *merger) complete(ctx context.Context, img source.Image, entries []index.Entry) ([]index.Entry, error) {
	for i, e := range entries {
		if !e.IsImage() || e.Platform != nil && (e.Platform.OS != "" || e.Platform.Architecture != "") {
			continue
		}
		man, _, err := source.ReadManifest(ctx, img, e.Descriptor)
		if err != nil {
			return nil, err
		}
		if !index.IsConfig(man.Config.MediaType) { // an artifact that its entry does not call one
			t := man.ArtifactType
			if t == "" {
				t = man.Config.MediaType
			}
			if entries[i], err = e.SetArtifactType(t); err != nil {
				return nil, err
			}
			continue
		}
		c, err := source.ReadConfig(ctx, img, man)
		if err != nil {
			return nil, err
		}
		if entries[i], err = e.SetPlatform(index.PatchOf(c.Platform.OCI())); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// annotate puts annotations on entries and, where asked for, into manifests, which become others by that.
func (m *merger) annotate(ctx context.Context, parts []part) ([]part, error) {
	m.parts = map[digest.Digest]Source{}
	out := make([]part, 0, len(parts))
	renamed := map[digest.Digest]digest.Digest{}
	for _, p := range parts {
		var of *platform.Platform
		if p.IsImage() && p.Platform != nil {
			if v, err := platform.FromOCI(*p.Platform); err == nil {
				of = &v
			}
		}
		if set := annotationsOf(m.o.Annotations, LevelManifest, of); len(set) > 0 && p.IsImage() {
			was := p.Digest
			e, from, err := annotateManifest(ctx, p, set)
			if err != nil {
				return nil, err
			}
			p = part{e, from}
			renamed[was] = p.Digest
		}
		if set := annotationsOf(m.o.Annotations, LevelManifestDescriptor, of); len(set) > 0 && (p.IsImage() || index.IsIndex(p.MediaType)) {
			e, err := p.Annotate(set)
			if err != nil {
				return nil, err
			}
			p.Entry = e
		}
		out = append(out, p)
	}
	for i, p := range out {
		if now, ok := renamed[index.Attests(p.Descriptor)]; ok && index.IsAttestation(p.Descriptor) {
			e, err := p.Annotate(map[string]string{index.AnnotationReferenceDigest: now.String()})
			if err != nil {
				return nil, err
			}
			out[i].Entry = e
		}
		if m.parts[p.Digest] == nil {
			m.parts[p.Digest] = p.from
		}
	}
	return out, nil
}

// edited is a source of which one document was changed.
type edited struct {
	Source
	made map[digest.Digest][]byte
}

// Manifest implements Source.
func (e edited) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := e.made[desc.Digest]; ok {
		return raw, nil
	}
	return e.Source.Manifest(ctx, desc)
}

// annotateManifest changes the annotations of an image's manifest.
func annotateManifest(ctx context.Context, p part, set map[string]string) (index.Entry, Source, error) {
	raw, err := p.from.Manifest(ctx, p.Descriptor)
	if err != nil {
		return p.Entry, nil, err
	}
	desc, changed, err := index.AnnotateManifest(p.Descriptor, raw, set)
	if err != nil {
		return p.Entry, nil, err
	}
	e, err := p.Point(desc)
	return e, edited{p.from, map[digest.Digest][]byte{desc.Digest: changed}}, err
}

// root makes the index.
func (m *merger) root(ctx context.Context, sources []MergeSource, parts []part) (Root, error) {
	untouched := len(sources) == 1 && len(m.o.Platforms) == 0 && len(m.o.Annotations) == 0 && !m.o.Nested && sources[0].Platform.IsZero() && m.images[0] != nil
	if untouched && (index.IsIndex(m.images[0].Root().MediaType) || m.o.Single) {
		img := m.images[0]
		desc := img.Root()
		if !index.IsIndex(desc.MediaType) || (desc.MediaType == index.MediaTypeDockerList) == m.o.Docker || !m.o.Docker {
			desc.Platform = nil
			return Root{Desc: desc, From: img}, nil
		}
	}
	x, err := index.NewEditor(index.Options{Docker: m.o.Docker || allDocker(parts)})
	if err != nil {
		return Root{}, err
	}
	if !m.o.Replace {
		if err := twice(parts); err != nil {
			return Root{}, err
		}
	}
	for _, p := range parts {
		if err := x.Add(p.Entry, m.o.Replace); err != nil {
			return Root{}, err
		}
	}
	if set := annotationsOf(m.o.Annotations, LevelIndex, nil); len(set) > 0 {
		if err := x.Annotate(set); err != nil {
			return Root{}, err
		}
	}
	if m.o.Docker {
		if err := x.Convert(true); err != nil {
			return Root{}, err
		}
	}
	root := Root{Parts: m.parts}
	if root.Desc, root.Raw, err = x.Finish(); err != nil {
		return root, err
	}
	root.Desc.Annotations = annotationsOf(m.o.Annotations, LevelIndexDescriptor, nil)
	for _, n := range x.Notes() {
		m.m.note("%s", n)
	}
	return root, nil
}

// twice reports two different images for one platform, with where they come from.
func twice(parts []part) error {
	first := map[string]part{}
	for _, p := range parts {
		if !p.IsImage() {
			continue
		}
		key := slotKey(p.Entry)
		if f, ok := first[key]; ok && f.Digest != p.Digest {
			return fmt.Errorf("%w: %s is %s in %s and %s in %s: leave one out, or --replace-platform", index.ErrDuplicate,
				key, f.Digest, f.from.Ref(), p.Digest, p.from.Ref())
		}
		first[key] = p
	}
	return nil
}

// allDocker reports whether every entry is of Docker's types and has nothing that only OCI's index can hold.
func allDocker(parts []part) bool {
	for _, p := range parts {
		if p.MediaType != index.MediaTypeDockerManifest || len(p.Annotations) > 0 || p.ArtifactType != "" {
			return false
		}
	}
	return true
}

// append adds the parts to every tag.
func (m *merger) append(ctx context.Context, names []ref.Ref, parts []part) (Merged, error) {
	var done Merged
	if !m.o.Replace {
		if err := twice(parts); err != nil {
			return done, err
		}
	}
	for _, n := range names {
		if n.Kind != ref.Registry {
			return m.appendLocal(ctx, names, parts)
		}
	}
	var roots []Root
	var entries []index.Entry
	for _, p := range parts {
		entries = append(entries, p.Entry)
		root := Root{Desc: p.Descriptor, From: p.from}
		for _, n := range names {
			root.Names = append(root.Names, n.WithDigest(p.Digest))
		}
		roots = append(roots, root)
	}
	if err := m.m.appendContent(ctx, roots); err != nil {
		return done, err
	}
	done.Report = m.m.report
	o := AppendOptions{
		Replace: m.o.Replace, DryRun: m.o.DryRun, Pause: m.o.Pause,
		Annotations: annotationsOf(m.o.Annotations, LevelIndex, nil),
	}
	for _, n := range names {
		got, err := Append(ctx, m.env, n, entries, o)
		if err != nil {
			return done, err
		}
		done.Desc, done.Raw = got.Desc, got.Raw
		done.Notes = append(done.Notes, got.Notes...)
		if !m.o.DryRun {
			done.Manifests++
		}
	}
	done.Roots = []ocispec.Descriptor{done.Desc}
	return done, nil
}

// appendContent brings entries to the places of their names, by digest.
func (m *mover) appendContent(ctx context.Context, roots []Root) (err error) {
	places, err := m.places(ctx, roots)
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.sink.close())
		}
	}()
	if err != nil {
		return err
	}
	for _, p := range places {
		p.run = &run{mover: m, sink: p.sink, tasks: map[digest.Digest]*task{}}
		g, gctx := errgroup.WithContext(ctx)
		for _, r := range p.roots {
			g.Go(func() error { return p.run.document(gctx, node{desc: r.Desc, raw: r.Raw, from: r.From}) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// appendLocal adds the parts to what a name of the store or a layout holds: one process at a time changes those.
func (m *merger) appendLocal(ctx context.Context, names []ref.Ref, parts []part) (Merged, error) {
	var done Merged
	if len(names) != 1 {
		return done, fmt.Errorf("%w: appending to several places that are not all registries: do one after the other", ErrInvalid)
	}
	img, err := m.env.opener().Open(ctx, names[0])
	if err != nil && !errors.Is(err, source.ErrNotFound) {
		return done, err
	}
	var before []part
	if err == nil {
		defer img.Close()
		if before, err = m.entriesOf(ctx, img, MergeSource{Ref: names[0]}); err != nil {
			return done, err
		}
		for _, p := range before {
			if m.parts[p.Digest] == nil {
				m.parts[p.Digest] = p.from
			}
		}
	}
	if !m.o.Replace {
		if err := twice(append(slices.Clone(before), parts...)); err != nil {
			return done, err
		}
	}
	root, err := m.rootOnto(ctx, img, before, parts)
	if err != nil {
		return done, err
	}
	root.Names = names
	done.Desc, done.Raw = root.Desc, root.Raw
	err = m.m.move(ctx, []Root{root})
	done.Report = m.m.report
	return done, err
}

// rootOnto adds parts to an index that is there, keeping what it says of itself.
func (m *merger) rootOnto(ctx context.Context, img source.Image, before, parts []part) (Root, error) {
	if img == nil || !index.IsIndex(img.Root().MediaType) {
		return m.root(ctx, nil, append(before, parts...))
	}
	raw, err := img.Manifest(ctx, img.Root())
	if err != nil {
		return Root{}, err
	}
	x, err := index.Edit(raw)
	if err != nil {
		return Root{}, err
	}
	for _, p := range parts {
		if err := x.Add(p.Entry, m.o.Replace); err != nil {
			return Root{}, err
		}
	}
	if err := x.Annotate(annotationsOf(m.o.Annotations, LevelIndex, nil)); err != nil {
		return Root{}, err
	}
	root := Root{From: img, Parts: m.parts}
	root.Desc, root.Raw, err = x.Finish()
	return root, err
}

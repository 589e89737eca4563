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
	// Annotations of the entry; for a source that is a single image.
	Annotations map[string]string
	// Optional sources may be missing.
	Optional bool
}

// untouched reports whether nothing of the source is changed.
func (s MergeSource) untouched() bool { return s.Platform.IsZero() && len(s.Annotations) == 0 }

// MergeOptions tunes Merge. The zero value is the recommended one.
type MergeOptions struct {
	Options
	Append      bool // add to what the tags hold now; see [Append]
	Replace     bool // of two images for a platform the later one counts; else that is an error
	Nested      bool // a source that is an index stays one
	Docker      bool // a Docker manifest list
	Single      bool // a lone source that is a single image is copied as it is, and no index is made
	Rebuild     bool // a lone source that is an index is taken apart as well
	Annotations []Annotation
	Subject     *ocispec.Descriptor                    // what the index is about; not with Append
	Type        string                                 // the index's artifactType; not with Append
	Pause       func(ctx context.Context, n int) error // see [AppendOptions]
	// Check, when it is not nil, sees every image before anything is written: where it is read, and its entry. An error ends the merge.
	Check func(ctx context.Context, img source.Image, entry ocispec.Descriptor) error
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
	if m.o.Append && (m.o.Subject != nil || m.o.Type != "") {
		return done, fmt.Errorf("%w: a subject and an artifactType are of a new index, not of one that is appended to", ErrInvalid)
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
	if m.o.Check != nil {
		for _, p := range out {
			if img, ok := p.from.(source.Image); ok && p.IsImage() {
				if err := m.o.Check(ctx, img, p.Descriptor); err != nil {
					return nil, err
				}
			}
		}
	}
	return m.annotate(ctx, out)
}

func forPlatforms(ps []platform.Platform) string {
	if len(ps) == 0 {
		return ""
	}
	return " for " + platformNames(ps)
}

// root makes the index.
func (m *merger) root(ctx context.Context, sources []MergeSource, parts []part) (Root, error) {
	untouched := len(sources) == 1 && !m.o.Rebuild && len(m.o.Platforms) == 0 && len(m.o.Annotations) == 0 && !m.o.Nested && m.o.Subject == nil && m.o.Type == "" &&
		sources[0].untouched() && m.images[0] != nil
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
	if m.o.Subject != nil {
		if err := x.SetSubject(m.o.Subject); err != nil {
			return Root{}, err
		}
	}
	if m.o.Type != "" {
		x.SetArtifactType(m.o.Type)
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

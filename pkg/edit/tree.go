package edit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// editParallel is how many images are edited at once.
const editParallel = 8

// tree is an index, or a single image, that is edited.
type tree struct {
	op      op
	o       Options
	img     source.Image
	content *content
	images  int                                  // that were edited
	changed map[digest.Digest]ocispec.Descriptor // what became another
	have    []platform.Platform                  // of all images
	notes   map[string]bool
	gone    map[Entry]bool // of what is removed, what was there
}

func (t *tree) note(format string, a ...any) { t.notes[fmt.Sprintf(format, a...)] = true }

func (t *tree) sorted() []string { return slices.Sorted(maps.Keys(t.notes)) }

// root edits everything.
func (t *tree) root(ctx context.Context) (ocispec.Descriptor, []byte, error) {
	root := t.img.Root()
	root.Platform, root.Annotations = nil, nil
	raw, err := t.img.Manifest(ctx, root)
	if err != nil {
		return root, nil, err
	}
	if index.IsIndex(root.MediaType) {
		root, raw, err = t.index(ctx, root, raw, 0)
	} else {
		root, raw, err = t.single(ctx, root)
	}
	for _, r := range t.o.Remove {
		if err == nil && !t.gone[r] {
			err = fmt.Errorf("%w: no entry %s%s; there are %s", source.ErrNotFound, r.Digest, r.Platform, listOf(t.have))
		}
	}
	if err == nil && t.images == 0 && len(t.o.Remove) == 0 {
		err = fmt.Errorf("%w: no image%s; there are %s", source.ErrNotFound, t.wanted(), listOf(t.have))
	}
	return root, raw, err
}

func (t *tree) wanted() string {
	if len(t.o.Platforms) == 0 {
		return ""
	}
	return " for " + listOf(t.o.Platforms)
}

func listOf(ps []platform.Platform) string {
	if len(ps) == 0 {
		return "none"
	}
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}

// single edits an image that stands alone.
func (t *tree) single(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	s, err := t.read(ctx, desc)
	if err != nil {
		return desc, nil, err
	}
	t.have = append(t.have, s.platform)
	if !t.chosen(s.platform) {
		return desc, s.raw, nil
	}
	p, err := t.edit(ctx, s)
	if err != nil {
		return desc, nil, err
	}
	t.take(desc, s.platform.String(), p)
	return p.desc, p.manifest, nil
}

// read reads an image's documents.
func (t *tree) read(ctx context.Context, desc ocispec.Descriptor) (*subject, error) {
	s := &subject{img: t.img, desc: desc}
	var err error
	if s.manifest, s.raw, err = source.ReadManifest(ctx, t.img, desc); err != nil {
		return nil, err
	}
	if s.config, err = source.ReadConfig(ctx, t.img, s.manifest); err != nil {
		return nil, err
	}
	s.platform, err = source.Agree(desc, s.config)
	return s, err
}

func (t *tree) chosen(p platform.Platform) bool {
	return len(t.o.Platforms) == 0 || slices.ContainsFunc(t.o.Platforms, func(want platform.Platform) bool {
		if want.OSVersion == "" {
			p.OSVersion = ""
		}
		return p == want
	})
}

// edit changes an image: by the operation, then its annotations and its form.
func (t *tree) edit(ctx context.Context, s *subject) (*product, error) {
	p, err := t.op.apply(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.platform, err)
	}
	x, err := image.EditManifest(p.manifest)
	if err != nil {
		return nil, err
	}
	set := transfer.AnnotationsFor(t.o.Annotations, transfer.LevelManifest, &s.platform)
	gone := transfer.AnnotationsFor(t.o.Unannotate, transfer.LevelManifest, &s.platform)
	if err := x.Annotate(set, slices.Sorted(maps.Keys(gone))...); err != nil {
		return nil, fmt.Errorf("%s: %w", s.platform, err)
	}
	if t.o.Form != AsIs {
		if err := x.Convert(t.o.Form == Docker); err != nil {
			return nil, fmt.Errorf("%s: %w", s.platform, err)
		}
	}
	p.notes = append(p.notes, x.Notes()...)
	p.desc, p.manifest, err = x.Finish()
	return p, err
}

// take takes over what an image became.
func (t *tree) take(old ocispec.Descriptor, name string, p *product) {
	t.images++
	for _, n := range p.notes {
		t.note("%s: %s", name, n)
	}
	t.content.add(p)
	if p.desc.Digest != old.Digest {
		t.changed[old.Digest] = p.desc
	}
}

var _ transfer.Composite = related{}

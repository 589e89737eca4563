package edit

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// index edits the images of an index, and it with them.
func (t *tree) index(ctx context.Context, desc ocispec.Descriptor, raw []byte, depth int) (ocispec.Descriptor, []byte, error) {
	fail := func(err error) (ocispec.Descriptor, []byte, error) { return desc, nil, err }
	if depth > index.MaxNesting {
		return fail(fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, desc.Digest, index.MaxNesting))
	}
	x, err := index.Edit(raw)
	if err != nil {
		return fail(err)
	}
	if err := t.leaveOut(x); err != nil {
		return fail(err)
	}
	entries := x.Entries()
	products := make([]*product, len(entries))
	subjects := make([]*subject, len(entries))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(editParallel)
	for i, e := range entries {
		if !e.IsImage() {
			continue
		}
		if e.Platform != nil && e.Platform.Architecture != "" {
			if p, err := platform.FromOCI(*e.Platform); err == nil && !t.mayBe(p) {
				t.have = append(t.have, p)
				continue
			}
		}
		g.Go(func() error {
			s, err := t.read(gctx, e.Descriptor)
			if err != nil {
				return err
			}
			subjects[i] = s
			if t.chosen(s.platform) {
				products[i], err = t.edit(gctx, s)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fail(err)
	}
	renamed := map[digest.Digest]ocispec.Descriptor{} // in this index
	for i, e := range entries {
		switch {
		case subjects[i] != nil:
			t.have = append(t.have, subjects[i].platform)
			p := products[i]
			if p == nil {
				continue
			}
			t.take(e.Descriptor, subjects[i].platform.String(), p)
			if err := t.entry(x, i, e, p, subjects[i].platform); err != nil {
				return fail(err)
			}
			if p.desc.Digest != e.Digest {
				renamed[e.Digest] = p.desc
			}
		case index.IsIndex(e.MediaType):
			now, err := t.nested(ctx, e.Descriptor, depth)
			if err != nil {
				return fail(err)
			}
			if now.Digest != e.Digest {
				renamed[e.Digest] = now
				if err := setEntry(x, i, e, now); err != nil {
					return fail(err)
				}
			}
		}
	}
	if err := t.followers(ctx, x, renamed); err != nil {
		return fail(err)
	}
	if err := t.indexItself(x, depth); err != nil {
		return fail(err)
	}
	now, out, err := x.Finish()
	if err != nil {
		return fail(err)
	}
	for _, n := range x.Notes() {
		t.note("%s", n)
	}
	if now.Digest != desc.Digest {
		t.content.docs[now.Digest] = out
		t.changed[desc.Digest] = now
	}
	return now, out, nil
}

// leaveOut removes entries, and with them the attestations of what is gone.
func (t *tree) leaveOut(x *index.Editor) error {
	var at []int
	for i, e := range x.Entries() {
		for _, r := range t.o.Remove {
			same := r.Digest != "" && r.Digest == e.Digest
			if !r.Platform.IsZero() && e.IsImage() && e.Platform != nil {
				p, err := platform.FromOCI(*e.Platform)
				same = same || err == nil && p == r.Platform
			}
			if same {
				at = append(at, i)
				t.gone[r] = true
			}
		}
	}
	if len(at) > 0 {
		for _, e := range x.Remove(at...) {
			t.note("removed %s", e.Digest)
		}
	}
	return nil
}

// mayBe reports whether an image whose entry says p may be one of those that were asked for: its config may say more.
func (t *tree) mayBe(p platform.Platform) bool {
	return len(t.o.Platforms) == 0 || slices.ContainsFunc(t.o.Platforms, func(want platform.Platform) bool {
		return want.OS == p.OS && want.Arch == p.Arch
	})
}

// entry makes an entry stand for what its image became.
func (t *tree) entry(x *index.Editor, i int, e index.Entry, p *product, of platform.Platform) error {
	set := transfer.AnnotationsFor(t.o.Annotations, transfer.LevelManifestDescriptor, &of)
	gone := transfer.AnnotationsFor(t.o.Unannotate, transfer.LevelManifestDescriptor, &of)
	e, err := e.Annotate(set, slices.Sorted(maps.Keys(gone))...)
	if err == nil && (p.desc.Digest != e.Digest || p.desc.MediaType != e.MediaType) {
		e, err = e.Point(p.desc)
	}
	if err == nil && !p.patch.IsZero() {
		e, err = e.SetPlatform(p.patch)
	}
	if err == nil {
		err = x.Set(i, e)
	}
	return err
}

func setEntry(x *index.Editor, i int, e index.Entry, now ocispec.Descriptor) error {
	e, err := e.Point(now)
	if err != nil {
		return err
	}
	return x.Set(i, e)
}

func (t *tree) nested(ctx context.Context, desc ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	if now, ok := t.changed[desc.Digest]; ok {
		return now, nil
	}
	raw, err := t.img.Manifest(ctx, desc)
	if err != nil {
		return desc, err
	}
	now, _, err := t.index(ctx, desc, raw, depth+1)
	if err != nil {
		return desc, fmt.Errorf("the nested index %s: %w", desc.Digest, err)
	}
	return now, nil
}

// indexItself changes what an index says of itself.
func (t *tree) indexItself(x *index.Editor, depth int) error {
	if depth == 0 {
		gone := transfer.AnnotationsFor(t.o.Unannotate, transfer.LevelIndex, nil)
		err := x.Annotate(transfer.AnnotationsFor(t.o.Annotations, transfer.LevelIndex, nil), slices.Sorted(maps.Keys(gone))...)
		if err != nil {
			return err
		}
	}
	if t.o.Form == AsIs {
		return nil
	}
	return x.Convert(t.o.Form == Docker)
}

package edit

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
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

var _ transfer.Composite = related{}

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

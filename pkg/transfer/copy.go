package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// AnnotationOriginal is the annotation of an index that was made by leaving out platforms: the digest of the whole one.
const AnnotationOriginal = "io.github.manifestctl.original"

// Copy copies what src names to dst, with what refers to it. Digests stay, but for an index of which platforms are left
// out: it is written anew, and an annotation tells the original's.
func Copy(ctx context.Context, env Env, src, dst ref.Ref, o Options) (_ Report, err error) {
	m := newMover(env, o)
	before := env.requests()
	defer func() { err = errors.Join(err, m.close()) }()
	roots, err := m.sources(ctx, src, dst)
	asked := len(roots)
	if err != nil || len(roots) == 0 {
		m.report.Requests += env.requests() - before
		return m.report, err
	}
	if o.Referrers == WithReferrers {
		if roots, err = m.withRelated(ctx, roots, false); err != nil {
			return m.report, err
		}
	}
	var named []ocispec.Descriptor // without what refers to them: that is not what was asked for
	for _, r := range roots[len(roots)-asked:] {
		named = append(named, r.Desc)
	}
	if o.Refresh {
		if roots, err = m.changed(ctx, roots); err != nil {
			return m.report, err
		}
	}
	err = m.move(ctx, roots)
	m.report.Roots = named
	m.report.Requests += env.requests() - before
	return m.report, err
}

// sources opens what is to be copied.
func (m *mover) sources(ctx context.Context, src, dst ref.Ref) ([]Root, error) {
	opener := m.env.opener()
	tags := []string{""}
	if m.o.AllTags {
		var err error
		if tags, err = m.tags(ctx, src); err != nil {
			return nil, err
		}
		if dst.Kind == ref.DockerArchive {
			return nil, fmt.Errorf("%w: a docker archive holds one image here: copy all tags to oci-archive:FILE", ErrInvalid)
		}
	}
	var roots []Root
	for _, tag := range tags {
		from, to := src, dst
		if m.o.AllTags {
			from, to = retagged(src, tag), dst.WithTag(tag)
		}
		if m.o.NoClobber {
			there, err := m.exists(ctx, to)
			if err != nil {
				return roots, err
			}
			if there {
				m.note("%s exists: left as it is", to)
				m.report.Kept++
				continue
			}
		}
		img, err := opener.Open(ctx, from)
		if err != nil {
			return roots, err
		}
		m.opened = append(m.opened, img)
		root, err := m.subset(ctx, img, to)
		if err != nil {
			if strings.HasPrefix(err.Error(), from.String()+": ") {
				return roots, err
			}
			return roots, fmt.Errorf("%s: %w", from, err)
		}
		root.Names, root.Whole = []ref.Ref{to}, wholeNames(from)
		roots = append(roots, root)
	}
	return roots, nil
}

// exists reports whether a name is there.
func (m *mover) exists(ctx context.Context, name ref.Ref) (bool, error) {
	if name.Kind == ref.OCIArchive || name.Kind == ref.DockerArchive { // it is replaced as a whole
		_, err := os.Stat(m.path(name.Path))
		if errors.Is(err, fs.ErrNotExist) || name.Path == "-" {
			return false, nil
		}
		return err == nil, err
	}
	d, err := m.current(ctx, name)
	return d != "", err
}

// wholeNames is what an image is called in the annotations of a layout.
func wholeNames(from ref.Ref) []ref.Ref {
	switch {
	case from.Kind == ref.Registry && from.Tag != "":
		return []ref.Ref{from.WithTag(from.Tag)}
	case from.Kind == ref.Store && from.Name != "" && from.Tag != "":
		if r, err := ref.Parse(from.Name + ":" + from.Tag); err == nil && r.Kind == ref.Registry {
			return []ref.Ref{r}
		}
	}
	return nil
}

// tags lists the tags of a source that are images: not those that only serve to find what refers to one.
func (m *mover) tags(ctx context.Context, src ref.Ref) ([]string, error) {
	all, _, err := Tags(ctx, m.env, src)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s has no tags", source.ErrNotFound, src)
	}
	return all, nil
}

// subset is what of img goes to dst.
func (m *mover) subset(ctx context.Context, img source.Image, dst ref.Ref) (Root, error) {
	root := Root{Desc: img.Root(), From: img}
	root.Desc.Platform = nil
	single := dst.Kind == ref.DockerArchive
	switch isIndex := index.IsIndex(root.Desc.MediaType); {
	case !isIndex && len(m.o.Platforms) > 0:
		if len(m.o.Platforms) > 1 {
			return root, fmt.Errorf("%w: it is a single image, not one for each of %s", source.ErrNotFound, platformNames(m.o.Platforms))
		}
		_, err := source.Resolve(ctx, img, m.o.Platforms[0])
		return root, err
	case !isIndex:
		return root, nil
	case single:
		var want platform.Platform
		if len(m.o.Platforms) > 1 {
			return root, fmt.Errorf("%w: a docker archive holds one platform, not %s", ErrInvalid, platformNames(m.o.Platforms))
		} else if len(m.o.Platforms) == 1 {
			want = m.o.Platforms[0]
		}
		r, err := source.Resolve(ctx, img, want)
		if err != nil {
			return root, err
		}
		root.Desc, root.Raw = r.Desc, r.Raw
		return root, nil
	case len(m.o.Platforms) == 0:
		return root, nil
	}
	idx, err := source.ReadIndex(ctx, img, img.Root())
	if err != nil {
		return root, err
	}
	x, err := index.Edit(idx.Raw)
	if err != nil {
		return root, err
	}
	if err := x.Flatten(ctx, img.Manifest); err != nil {
		return root, err
	}
	if err := checkPlatforms(m.o.Platforms, x); err != nil {
		return root, err
	}
	if m.o.Sparse {
		return root, nil
	}
	flat := &index.Index{}
	for _, e := range x.Entries() {
		flat.Manifests = append(flat.Manifests, e.Descriptor)
	}
	var gone []int
	for i, e := range x.Entries() {
		if !wanted(m.o.Platforms, flat, e.Descriptor) {
			gone = append(gone, i)
		}
	}
	if len(gone) == 0 {
		return root, nil
	}
	x.Remove(gone...)
	if x.MediaType() != index.MediaTypeDockerList { // that has no place for it
		if err := x.Annotate(map[string]string{AnnotationOriginal: img.Root().Digest.String()}); err != nil {
			return root, err
		}
	}
	if root.Desc, root.Raw, err = x.Finish(); err != nil {
		return root, err
	}
	m.note("the index for %s is %s; the whole one was %s", platformNames(m.o.Platforms), root.Desc.Digest, img.Root().Digest)
	return root, nil
}

// checkPlatforms reports the platforms that were asked for and are not there.
func checkPlatforms(want []platform.Platform, x *index.Editor) error {
	var have, missing []platform.Platform
	for _, e := range x.Entries() {
		if e.IsImage() && e.Platform != nil {
			if p, err := platform.FromOCI(*e.Platform); err == nil {
				have = append(have, p)
			}
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(p platform.Platform) bool { return matchesAny([]platform.Platform{w}, p) }) {
			missing = append(missing, w)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: no image for %s; there are %s", source.ErrNotFound, platformNames(missing), platformNames(have))
}

func platformNames(ps []platform.Platform) string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.String()
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// reached lists the manifests and indexes that a root leads to, itself among them, as far as they are moved.
func (m *mover) reached(ctx context.Context, r Root) ([]ocispec.Descriptor, error) {
	out := []ocispec.Descriptor{r.Desc}
	if !index.IsIndex(r.Desc.MediaType) {
		return out, nil
	}
	raw := r.Raw
	if raw == nil {
		var err error
		if raw, err = r.From.Manifest(ctx, r.Desc); err != nil {
			return nil, err
		}
	}
	entries, err := index.Expand(ctx, raw, r.From.Manifest)
	if err != nil {
		return nil, err
	}
	idx := &index.Index{}
	for _, e := range entries {
		idx.Manifests = append(idx.Manifests, e.Descriptor)
	}
	seen := map[digest.Digest]bool{r.Desc.Digest: true}
	for _, e := range idx.Manifests {
		if seen[e.Digest] || m.o.Sparse && len(m.o.Platforms) > 0 && !wanted(m.o.Platforms, idx, e) {
			continue
		}
		seen[e.Digest] = true
		out = append(out, e)
	}
	return out, nil
}

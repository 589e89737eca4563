package edit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// RebaseOptions tunes Rebase. The zero value is the recommended one.
type RebaseOptions struct {
	Options
	// The bases. Without one, the annotations of the image say it (image-spec, annotations.md): the old base is the one of
	// that digest, and the new one what its name stands for now.
	Old, New *ref.Ref
}

// Rebase puts the layers of a new base in the place of those of the old one, in every image of src, and brings the result
// to names. The config stays, but for the layers, their history, and what the new base says of the operating system. An
// image that is not built on the old base is ErrNotBase.
func Rebase(ctx context.Context, env transfer.Env, src ref.Ref, names []ref.Ref, o RebaseOptions) (Result, error) {
	return run(ctx, env, src, names, &rebase{opener: env.Opener(), o: o, opened: map[string]source.Image{}}, o.Options)
}

type rebase struct {
	opener *source.Opener
	o      RebaseOptions

	opening sync.Mutex // guards opened and index
	opened  map[string]source.Image
	index   map[string]string // annotations of the index; nil: not read yet
}

func (r *rebase) close() error {
	var errs []error
	for _, img := range r.opened {
		errs = append(errs, img.Close())
	}
	return errors.Join(errs...)
}

// open opens a base once.
func (r *rebase) open(ctx context.Context, at ref.Ref) (source.Image, error) {
	r.opening.Lock()
	defer r.opening.Unlock()
	if img := r.opened[at.String()]; img != nil {
		return img, nil
	}
	img, err := r.opener.Open(ctx, at)
	if err == nil {
		r.opened[at.String()] = img
	}
	return img, err
}

// bases opens the old and the new base of an image: those that were named, else those that it says itself.
func (r *rebase) bases(ctx context.Context, s *subject) (old, base source.Image, err error) {
	from, to := r.o.Old, r.o.New
	if from == nil || to == nil {
		name, d, err := r.recorded(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		if name == nil && to == nil {
			return nil, nil, fmt.Errorf("%w: no annotation %s says what its base is: name the new base", ErrInvalid, ocispec.AnnotationBaseImageName)
		}
		if to == nil {
			to = name
		}
		if from == nil {
			if d == "" {
				return nil, nil, fmt.Errorf("%w: no annotation %s says what it was built on: name the old base", ErrInvalid, ocispec.AnnotationBaseImageDigest)
			}
			at := *to
			if name != nil {
				at = *name
			}
			at = at.WithDigest(d)
			from = &at
		}
	}
	if old, err = r.open(ctx, *from); err != nil {
		return nil, nil, fmt.Errorf("the old base: %w", err)
	}
	if base, err = r.open(ctx, *to); err != nil {
		return nil, nil, fmt.Errorf("the new base: %w", err)
	}
	return old, base, nil
}

// recorded is what the annotations of an image, else of its index, say of its base.
func (r *rebase) recorded(ctx context.Context, s *subject) (name *ref.Ref, d digest.Digest, err error) {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.index == nil {
		r.index = map[string]string{}
		if root := s.img.Root(); index.IsIndex(root.MediaType) {
			idx, err := source.ReadIndex(ctx, s.img, root)
			if err != nil {
				return nil, "", err
			}
			maps.Copy(r.index, idx.Annotations)
		}
	}
	say := func(key string) string {
		if v := s.manifest.Annotations[key]; v != "" {
			return v
		}
		return r.index[key]
	}
	if text := say(ocispec.AnnotationBaseImageName); text != "" {
		n, err := ref.Parse(text)
		if err != nil {
			return nil, "", fmt.Errorf("the annotation %s: %w", ocispec.AnnotationBaseImageName, err)
		}
		name = &n
	}
	d = digest.Digest(say(ocispec.AnnotationBaseImageDigest))
	if d != "" {
		if err := index.CheckDigest(d); err != nil {
			return nil, "", fmt.Errorf("%w: the annotation %s: %w", ErrInvalid, ocispec.AnnotationBaseImageDigest, err)
		}
	}
	return name, d, nil
}

func (r *rebase) apply(ctx context.Context, s *subject) (*product, error) {
	from, to, err := r.bases(ctx, s)
	if err != nil {
		return nil, err
	}
	old, err := source.Resolve(ctx, from, s.platform)
	if err != nil {
		return nil, fmt.Errorf("the old base: %w", err)
	}
	base, err := source.Resolve(ctx, to, s.platform)
	if err != nil {
		return nil, fmt.Errorf("the new base: %w", err)
	}
	n := len(old.DiffIDs)
	if n > len(s.config.DiffIDs) || !slices.Equal(old.DiffIDs, s.config.DiffIDs[:n]) {
		return nil, fmt.Errorf("%w: the lowest %d of its %d layers are not those of %s", ErrNotBase, n, len(s.config.DiffIDs), from.Ref())
	}
	x, err := image.EditManifest(s.raw)
	if err != nil {
		return nil, err
	}
	mine, err := x.Layers()
	if err != nil {
		return nil, err
	}
	b, err := image.EditManifest(base.Raw)
	if err != nil {
		return nil, err
	}
	theirs, err := b.Layers()
	if err != nil {
		return nil, err
	}
	if err := x.SetLayers(append(theirs, mine[n:]...)); err != nil {
		return nil, err
	}
	c, err := image.OpenConfig(s.config.Raw)
	if err != nil {
		return nil, err
	}
	bc, err := image.OpenConfig(base.Config)
	if err != nil {
		return nil, err
	}
	if err := c.Rebase(n, bc); err != nil {
		return nil, err
	}
	if err := record(x, to.Ref(), base.Desc.Digest); err != nil {
		return nil, err
	}
	var change image.Edit
	var known ocispec.Image
	if err := json.Unmarshal(base.Config, &known); err != nil { // it was read before
		return nil, err
	}
	if v := known.OSVersion; v != "" && v != s.config.Image.OSVersion {
		change.Platform.OSVersion = &v // the entry of the index says it too
	}
	p, err := finish(x, c.Bytes(), change)
	if err != nil {
		return nil, err
	}
	p.from = map[digest.Digest]source.Image{}
	for _, l := range theirs {
		p.from[l.Digest] = to
	}
	return p, nil
}

// record says in the annotations what the base is now. Docker's manifests have none, and say nothing.
func record(x *image.ManifestEditor, at ref.Ref, d digest.Digest) error {
	if x.Docker() || at.Kind != ref.Registry {
		return nil
	}
	set := map[string]string{ocispec.AnnotationBaseImageDigest: d.String()}
	var gone []string
	if at.Tag != "" {
		set[ocispec.AnnotationBaseImageName] = at.WithTag(at.Tag).String()
	} else {
		gone = append(gone, ocispec.AnnotationBaseImageName)
	}
	return x.Annotate(set, gone...)
}

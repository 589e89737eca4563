package transfer

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// changed drops the roots that are where they go already: under their name, or in the destination's list of referrers.
// What is named there is there in whole: names are written last.
func (m *mover) changed(ctx context.Context, roots []Root) ([]Root, error) {
	lists := map[string][]ocispec.Descriptor{}
	var out []Root
	for _, r := range roots {
		to := r.Names[0]
		there := false
		switch {
		case m.o.Sparse && len(m.o.Platforms) > 0: // an index that is kept may lack other children by now
		case r.Subject != "":
			key := placeKey(to) + " " + to.Name + " " + r.Subject.String()
			list, ok := lists[key]
			if !ok {
				var err error
				f := &relatedFinder{m: m, from: to, other: true}
				if list, err = f.referrers(ctx, r.Subject); err != nil && !nothingYet(err) {
					return nil, err
				}
				lists[key] = list
			}
			there = slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == r.Desc.Digest })
		default:
			d, err := m.current(ctx, to)
			if err != nil {
				return nil, err
			}
			if there = d == r.Desc.Digest; there {
				m.report.Unchanged++
			}
		}
		if !there {
			out = append(out, r)
		}
	}
	return out, nil
}

// current is what a name points at; "" when there is none.
func (m *mover) current(ctx context.Context, name ref.Ref) (digest.Digest, error) {
	if name.Kind == ref.Registry {
		desc, err := m.env.Registry.Head(ctx, name)
		return desc.Digest, err
	}
	if name.Kind == ref.OCIArchive || name.Kind == ref.DockerArchive { // written as a whole
		return "", nil
	}
	img, err := m.env.opener().Open(ctx, name)
	if nothingYet(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return img.Root().Digest, img.Close()
}

// nothingYet reports whether a place that is written to holds no such thing, or is still to be made.
func nothingYet(err error) bool {
	for _, kind := range []error{source.ErrNotFound, source.ErrInvalid, source.ErrAmbiguous, store.ErrNotFound} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// Tags lists the tags of a repository, layout or archive, or of a name in the store: those that are images, and all, with
// those that lead from a digest to what refers to it.
func Tags(ctx context.Context, env Env, src ref.Ref) (images, all []string, err error) {
	all, err = env.opener().Tags(ctx, src)
	if err != nil {
		return nil, nil, err
	}
	return imageTags(all), all, nil
}

func imageTags(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(t string) bool { return isRelatedTag(t) || IsMarker(t) || strings.HasPrefix(t, StagePrefix) })
}

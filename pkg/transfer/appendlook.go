package transfer

import (
	"context"
	"errors"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// maxUnsteady is how often a tag is read again that is listed and yet not found: a registry on plain files may be writing
// it at this moment, and one that deletes manifests may list their tags for ever.
const maxUnsteady = 5

// look reads the tag and the markers that count for it.
func (a *appender) look(ctx context.Context) (state, error) {
	for n := 0; ; n++ {
		now, tags, err := a.lookOnce(ctx)
		if err != nil || now.desc.Digest != "" || n == maxUnsteady || !slices.Contains(tags, a.tag.Tag) {
			return now, err
		}
		if err := pause(ctx, n); err != nil {
			return now, err
		}
	}
}

func (a *appender) lookOnce(ctx context.Context) (state, []string, error) {
	var now state
	var tags []string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		now, err = a.read(gctx)
		return err
	})
	g.Go(func() (err error) {
		tags, err = a.client.Tags(gctx, a.tag)
		if errors.Is(err, registry.ErrNotFound) {
			err = nil // a repository without tags is none, to some
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return now, tags, err
	}
	markers, err := a.fetch(ctx, tags)
	if err != nil {
		return now, tags, err
	}
	for _, m := range markers {
		if m.tag == a.tag.Tag && m.base == now.base {
			now.markers = append(now.markers, m)
		}
	}
	return now, tags, nil
}

// read reads the tag.
func (a *appender) read(ctx context.Context) (state, error) {
	desc, raw, err := a.client.Original(ctx, a.tag)
	if errors.Is(err, registry.ErrNotFound) {
		return state{base: noBase}, nil
	}
	if err != nil {
		return state{}, err
	}
	now := state{desc: desc, raw: raw, base: baseOf(desc.Digest, raw)}
	if !index.IsIndex(desc.MediaType) { // a single image becomes the first entry
		now.base = desc.Digest.String()
		if now.raw, err = a.wrap(ctx, desc); err != nil {
			return state{}, err
		}
	}
	return now, nil
}

// wrap makes an index of the single image that the tag holds.
func (a *appender) wrap(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	img, err := a.env.opener().Open(ctx, a.tag.WithDigest(desc.Digest))
	if err != nil {
		return nil, err
	}
	defer img.Close()
	e, err := imageEntry(ctx, img)
	if err != nil {
		return nil, err
	}
	x, err := index.NewEditor(index.Options{})
	if err != nil {
		return nil, err
	}
	if err := x.Add(e, false); err != nil {
		return nil, err
	}
	_, raw, err := x.Finish()
	return raw, err
}

// fetch reads the markers among tags that are not known yet, and returns those that count.
func (a *appender) fetch(ctx context.Context, tags []string) ([]*marker, error) {
	oldest := a.env.Now().Add(-markerAge)
	var names []string
	a.expired = nil
	for _, t := range tags {
		switch at, ok := markerTime(t, a.tag.Tag); {
		case !ok:
		case at.Before(oldest):
			a.expired = append(a.expired, t)
		default:
			names = append(names, t)
		}
	}
	got := make([]*marker, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(defaultConcurrency)
	for i, name := range names {
		if m, ok := a.known[name]; ok {
			got[i] = m
			continue
		}
		g.Go(func() error {
			desc, raw, err := a.client.Manifest(gctx, a.tag.WithTag(name))
			if errors.Is(err, registry.ErrNotFound) {
				return nil // removed meanwhile
			}
			if err != nil {
				return err
			}
			if m, err := parseMarker(name, desc.Digest, raw); err == nil { // else it is nobody's promise
				got[i] = m
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []*marker
	for i, m := range got {
		a.known[names[i]] = m
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// imageEntry is the entry of the single image that img is: its platform comes from its config.
func imageEntry(ctx context.Context, img source.Image) (index.Entry, error) {
	list, err := source.List(ctx, img)
	if err != nil {
		return index.Entry{}, err
	}
	desc := img.Root()
	e := list[0]
	switch {
	case e.Err != nil:
		return index.Entry{}, e.Err
	case e.Kind == source.EntryImage:
		p := e.Platform.OCI()
		desc.Platform = &p
	default:
		m, _, err := source.ReadManifest(ctx, img, desc)
		if err != nil {
			return index.Entry{}, err
		}
		desc.ArtifactType, desc.Platform = m.ArtifactType, nil
		if desc.ArtifactType == "" {
			desc.ArtifactType = m.Config.MediaType
		}
	}
	return index.NewEntry(desc)
}

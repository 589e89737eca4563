package output

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func openImage(s Spec, env Env) (Destination, error) {
	s.Push = s.Push || s.Type == "registry"
	for _, name := range s.Names {
		if _, err := ref.ParseTag(name); err != nil {
			return nil, fmt.Errorf("%w: name: %w", ErrInvalid, err)
		}
	}
	switch {
	case env.Store == nil:
		return nil, errors.New("there is no store to write to")
	case s.Push && env.Registry == nil:
		return nil, errors.New("there is no registry client to push with")
	case s.Push && len(s.Names) == 0:
		return nil, invalid("a push needs a name: give one with -t HOST/REPO:TAG, or name=HOST/REPO:TAG")
	}
	return &storeImage{spec: s, env: env}, nil
}

// storeImage is the local store, and a registry when it pushes. The store comes first: what could
// not be pushed is not lost.
type storeImage struct {
	spec  Spec
	env   Env
	ahead flights // to the repository of the first name
}

// Write implements Destination.
func (s *storeImage) Write(ctx context.Context, p Product) error {
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	if err := s.keep(ctx, p, c); err != nil {
		return err
	}
	if !s.spec.Push {
		return s.names(ctx, p)
	}
	// A name waits for the disk to have all that it leads to. Content is on its way to the registry meanwhile, but no tag.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	named := make(chan error, 1)
	go func() {
		err := s.names(ctx, p)
		if err != nil {
			cancel(err)
		}
		named <- err
	}()
	kept := sync.OnceValue(func() error { return <-named })
	push := &pusher{client: s.env.Registry, events: s.env.Events, byDigest: s.spec.PushByDigest, ahead: &s.ahead, kept: kept}
	err = push.push(ctx, p, c)
	return cmp.Or(kept(), err)
}

// names points the names in the store at the root.
func (s *storeImage) names(ctx context.Context, p Product) error {
	if s.spec.Unnamed {
		return nil
	}
	for _, name := range p.Names {
		if err := s.name(ctx, name, p.Root); err != nil {
			return err
		}
	}
	return nil
}

// keep puts into the store what it does not hold: content that comes from elsewhere. With a push, layers that registries are
// known to hold stay there, and the store remembers where.
func (s *storeImage) keep(ctx context.Context, p Product, c *closure) error {
	left := map[digest.Digest][]string{}
	for _, desc := range c.all() {
		_, err := s.env.Store.Stat(desc.Digest)
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if places := p.Mounts[desc.Digest]; s.spec.Push && len(places) > 0 {
			for _, r := range places {
				left[desc.Digest] = append(left[desc.Digest], r.String())
			}
			continue
		}
		r, err := c.open(ctx, desc)
		if err != nil {
			return fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
		err = s.env.Store.PutExpected(ctx, desc, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	for _, img := range p.Images {
		var places []string
		for _, l := range img.Layers {
			for _, place := range left[l.Digest] {
				if !slices.Contains(places, place) {
					places = append(places, place)
				}
			}
		}
		if len(places) > 0 {
			if err := s.env.Store.AddOrigin(ctx, img.Desc.Digest, places...); err != nil {
				return err
			}
		}
	}
	return nil
}

// name points a name in the store at the root. What is pushed by digest has no tag of its own: of the platforms
// of a build that is split, each would take it from the other.
func (s *storeImage) name(ctx context.Context, name ref.Ref, root ocispec.Descriptor) error {
	names := []ref.Ref{name}
	if s.spec.PushByDigest {
		names = []ref.Ref{name.WithDigest(root.Digest)}
	} else if s.spec.Canonical {
		names = append(names, name.WithDigest(root.Digest))
	}
	for _, n := range names {
		if err := s.env.Store.SetRef(ctx, n.Familiar(), root); err != nil {
			return err
		}
	}
	return nil
}

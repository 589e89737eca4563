package output

import (
	"context"
	"errors"
	"fmt"

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
	spec Spec
	env  Env
}

// Write implements Destination.
func (s *storeImage) Write(ctx context.Context, p Product) error {
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	if err := s.keep(ctx, c); err != nil {
		return err
	}
	for _, name := range p.Names {
		if err := s.name(ctx, name, p.Root); err != nil {
			return err
		}
	}
	if !s.spec.Push {
		return nil
	}
	return (&pusher{client: s.env.Registry, events: s.env.Events, byDigest: s.spec.PushByDigest}).push(ctx, p, c)
}

// keep puts into the store what it does not hold: content that comes from elsewhere.
func (s *storeImage) keep(ctx context.Context, c *closure) error {
	for _, desc := range c.all() {
		_, err := s.env.Store.Stat(desc.Digest)
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		r, err := c.open(ctx, desc)
		if err != nil {
			return fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
		if err := errors.Join(s.env.Store.PutExpected(ctx, desc, r), r.Close()); err != nil {
			return err
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

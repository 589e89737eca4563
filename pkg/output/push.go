package output

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// pushParallel is how many blobs or manifests are on their way at once.
const pushParallel = 6

// transport is the part of *registry.Client that a push needs.
type transport interface {
	PushBlob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor, open registry.Open, from []ref.Ref) (bool, error)
	PushManifest(ctx context.Context, r ref.Ref, mediaType string, raw []byte) (ocispec.Descriptor, error)
}

var _ transport = (*registry.Client)(nil)

// pusher pushes a product to all of its names. No tag is touched before every repository holds everything.
type pusher struct {
	client   transport
	events   event.Sink
	byDigest bool
	ahead    *flights // to the first repository; nil: none
	// kept is waited for before the first tag is touched: what could not be pushed is in the store by then; nil: nothing is to wait for.
	kept func() error
}

func (p *pusher) push(ctx context.Context, product Product, c *closure) error {
	var repos []ref.Ref
	var tags []ref.Ref
	for _, name := range product.Names {
		if name.Kind != ref.Registry {
			return invalid("%s cannot be pushed to: it is no name in a registry", name)
		}
		repo := name.WithDigest(product.Root.Digest)
		if !slices.Contains(repos, repo) {
			repos = append(repos, repo)
		}
		if !p.byDigest && !slices.Contains(tags, name) {
			tags = append(tags, name)
		}
	}
	root := c.docs[len(c.docs)-1]
	if p.byDigest {
		tags = repos
	}
	skipped, err := p.everything(ctx, product, c, repos, tags, root, p.ahead)
	if skipped && errors.Is(err, registry.ErrBlobUnknown) { // what was sent ahead is gone: the registry has collected it
		_, err = p.everything(ctx, product, c, repos, tags, root, nil)
	}
	// Of a blob that several send at the same time docker-registry 2.8 says for a moment that it does not have it.
	for try := 0; try < pushAgain && errors.Is(err, registry.ErrBlobUnknown); try++ {
		t := time.NewTimer(100 * time.Millisecond << try)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
		_, err = p.everything(ctx, product, c, repos, tags, root, nil)
	}
	return err
}

// pushAgain is how often everything is sent once more to a registry that says it misses some of it.
const pushAgain = 4

// everything pushes content to all repositories, then the root to all tags.
func (p *pusher) everything(ctx context.Context, product Product, c *closure, repos, tags []ref.Ref, root document, ahead *flights) (skipped bool, err error) {
	for i, repo := range repos {
		if i > 0 {
			ahead = nil
		}
		some, err := p.content(ctx, repo, product.Mounts, repos[:i], c, ahead)
		skipped = skipped || some
		if err != nil {
			return skipped, err
		}
	}
	if p.kept != nil {
		if err := p.kept(); err != nil {
			return skipped, err
		}
	}
	for _, name := range tags {
		if err := p.manifest(ctx, name, root); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// content pushes everything but the root: blobs, then manifests, then the indexes among them. skipped says that blobs were believed
// to be there because they were sent ahead.
func (p *pusher) content(ctx context.Context, repo ref.Ref, mounts map[digest.Digest][]ref.Ref, pushed []ref.Ref, c *closure, ahead *flights) (skipped bool, err error) {
	var some atomic.Bool
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pushParallel)
	for _, blob := range c.blobs {
		from := append(slices.Clone(mounts[blob.Digest]), pushed...)
		g.Go(func() error {
			one, err := p.pushBlob(gctx, repo, blob, from, c, ahead)
			if one {
				some.Store(true)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return some.Load(), err
	}
	children := c.docs[:len(c.docs)-1]
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(pushParallel)
	for _, doc := range children {
		if !index.IsIndex(doc.desc.MediaType) {
			g.Go(func() error { return p.manifest(gctx, repo.WithDigest(doc.desc.Digest), doc) })
		}
	}
	if err := g.Wait(); err != nil {
		return some.Load(), err
	}
	for _, doc := range children {
		if index.IsIndex(doc.desc.MediaType) {
			if err := p.manifest(ctx, repo.WithDigest(doc.desc.Digest), doc); err != nil {
				return some.Load(), err
			}
		}
	}
	return some.Load(), nil
}

func (p *pusher) manifest(ctx context.Context, name ref.Ref, doc document) error {
	e := event.Event{Kind: event.Progress, ID: "manifest " + name.String(), Item: "pushing manifest " + name.String(), Total: doc.desc.Size}
	p.events.Emit(e)
	got, err := p.client.PushManifest(ctx, name, doc.desc.MediaType, doc.raw)
	if err != nil {
		return fmt.Errorf("pushing to %s: %w", name.Repository(), err)
	}
	if got.Digest != "" && got.Digest != doc.desc.Digest {
		return fmt.Errorf("pushing to %s: the registry says %s became %s", name.Repository(), doc.desc.Digest, got.Digest)
	}
	e.Current = e.Total
	p.events.Emit(e)
	return nil
}

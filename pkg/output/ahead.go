package output

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// Ahead is implemented by destinations that take blobs before it is known what will name them.
type Ahead interface {
	// Ahead writes one blob of the product to come; from is places that hold it. What goes wrong is Write's to say, which tries
	// again what is missing then.
	Ahead(ctx context.Context, desc ocispec.Descriptor, from []ref.Ref, open registry.Open)
}

// flights are blobs on their way to one repository, each once.
type flights struct {
	mu   sync.Mutex // guards all and dead
	all  map[digest.Digest]*flight
	dead bool // one failed: the others would, too
}

// flight is one blob; done is closed when err is final.
type flight struct {
	done chan struct{}
	err  error
}

// begin returns the flight of a blob; mine says that the caller is to do it and to call end.
func (f *flights) begin(d digest.Digest) (_ *flight, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.all[d]; ok {
		return one, false
	}
	if f.all == nil {
		f.all = map[digest.Digest]*flight{}
	}
	one := &flight{done: make(chan struct{})}
	f.all[d] = one
	return one, true
}

func (f *flights) end(one *flight, err error) {
	f.mu.Lock()
	f.dead = f.dead || err != nil
	f.mu.Unlock()
	one.err = err
	close(one.done)
}

func (f *flights) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// landed waits for a blob that was sent ahead, and reports whether it arrived.
func (f *flights) landed(ctx context.Context, d digest.Digest) bool {
	f.mu.Lock()
	one, ok := f.all[d]
	f.mu.Unlock()
	if !ok {
		return false
	}
	select {
	case <-one.done:
		return one.err == nil
	case <-ctx.Done():
		return false
	}
}

var _ Ahead = (*storeImage)(nil)

// Ahead implements [Ahead]: a blob goes to the first repository that will be pushed to.
func (s *storeImage) Ahead(ctx context.Context, desc ocispec.Descriptor, from []ref.Ref, open registry.Open) {
	if !s.spec.Push || s.ahead.failed() {
		return
	}
	name, err := ref.ParseTag(s.spec.Names[0])
	if err != nil || name.Kind != ref.Registry {
		return
	}
	one, mine := s.ahead.begin(desc.Digest)
	if mine {
		_, err := s.env.Registry.PushBlob(ctx, name.WithDigest(desc.Digest), desc, open, from)
		s.ahead.end(one, err)
	}
}

// pushBlob pushes one blob, unless it was sent ahead.
func (p *pusher) pushBlob(ctx context.Context, repo ref.Ref, blob ocispec.Descriptor, from []ref.Ref, c *closure, ahead *flights) (skipped bool, err error) {
	if ahead != nil {
		if one, mine := ahead.begin(blob.Digest); mine {
			defer func() { ahead.end(one, err) }()
		} else if ahead.landed(ctx, blob.Digest) {
			return true, nil
		}
	}
	if _, err := p.client.PushBlob(ctx, repo.WithDigest(blob.Digest), blob, c.opener(blob), from); err != nil {
		return false, fmt.Errorf("pushing to %s: %w", repo.Repository(), err)
	}
	return false, nil
}

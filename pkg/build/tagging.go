package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/stage"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Tagging says what becomes of platforms that a tag has and a build does not make.
type Tagging int

// The choices. A tag is one of a registry that the build pushes to, or a name in the store when it pushes nowhere.
const (
	KeepTags        Tagging = iota // a build that would drop a platform from a tag fails, before anything is built
	AppendToTags                   // they stay: what is built is added, or takes the place of the same platform's
	DropFromOldTags                // the tag becomes what is built
)

// ErrDrops says that a tag has platforms which a build would drop.
var ErrDrops = errors.New("platforms would be dropped")

// tagGuard watches over what tags held before a build.
type tagGuard struct {
	opener *source.Opener
	client *registry.Client
	events event.Sink
	made   []platform.Platform
	tags   []ref.Ref // of registries
	names  []ref.Ref // of the store

	held []digest.Digest // of tags, as they were looked at; "" when they do not exist or cannot be read
}

// newTagGuard is nil when there is nothing to watch over.
func newTagGuard(st *store.Store, client *registry.Client, req Request, targets []graph.Target, plans []plan, events event.Sink) *tagGuard {
	if req.Tagging != KeepTags {
		return nil
	}
	g := &tagGuard{opener: &source.Opener{Registry: client, Store: st}, client: client, events: events}
	for _, t := range targets {
		g.made = append(g.made, t.Platform)
	}
	for _, p := range plans {
		for _, n := range p.names {
			switch {
			case p.spec.PushByDigest:
			case p.pushes() && req.Stage == "":
				if !slices.Contains(g.tags, n) {
					g.tags = append(g.tags, n)
				}
			case p.spec.Type == "image" && !p.pushes():
				g.names = append(g.names, n)
			}
		}
	}
	g.held = make([]digest.Digest, len(g.tags))
	return g
}

// lookAtNames refuses to drop platforms from any name in the store.
func (g *tagGuard) lookAtNames(ctx context.Context) error {
	if g == nil {
		return nil
	}
	for _, n := range g.names {
		in, err := ref.Parse("store:" + n.Familiar())
		if err != nil {
			return err
		}
		if _, err := g.check(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// lookAtTags refuses to drop platforms from any tag. It looks while others go on: its context ends when it refuses, and
// wait says whether it does. stop ends it.
func (g *tagGuard) lookAtTags(ctx context.Context) (_ context.Context, wait func() error, stop func()) {
	if g == nil || len(g.tags) == 0 {
		return ctx, func() error { return nil }, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	group, gctx := errgroup.WithContext(ctx)
	for i, t := range g.tags {
		group.Go(func() (err error) {
			if g.held[i], err = g.check(gctx, t); err != nil {
				cancel(err)
			}
			return err
		})
	}
	return ctx, group.Wait, func() {
		cancel(nil)
		_ = group.Wait() // what it found is of no interest any more
	}
}

// lookAgain is look for tags that have changed since.
func (g *tagGuard) lookAgain(ctx context.Context) error {
	if g == nil {
		return nil
	}
	group, gctx := errgroup.WithContext(ctx)
	for i, t := range g.tags {
		group.Go(func() error {
			now, err := g.client.Head(gctx, t)
			if err != nil || now.Digest == g.held[i] {
				return nil //nolint:nilerr // the push will tell
			}
			_, err = g.check(gctx, t)
			return err
		})
	}
	return group.Wait()
}

// check refuses to drop platforms from one tag, and returns its digest. What cannot be read is not in the way: the push says
// what is wrong, and who may only push may replace.
func (g *tagGuard) check(ctx context.Context, tag ref.Ref) (digest.Digest, error) {
	at := tag
	if tag.Kind == ref.Registry {
		now, err := g.client.Head(ctx, tag) // of the place itself, and no mirror
		if err != nil || now.Digest == "" {
			return "", nil //nolint:nilerr // the push will tell
		}
		at = tag.WithDigest(now.Digest)
	}
	img, err := g.opener.Open(ctx, at)
	if err != nil {
		if !errors.Is(err, source.ErrNotFound) && !errors.Is(err, registry.ErrNotFound) && ctx.Err() == nil {
			g.events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("which platforms %s has is not known: %v", tag, err)})
		}
		return "", nil
	}
	defer img.Close()
	list, err := source.List(ctx, img)
	if err != nil {
		return img.Root().Digest, nil //nolint:nilerr // it is broken: replacing it is a mend
	}
	var lost []string
	for _, e := range list {
		if e.Kind != source.EntryImage || e.Err != nil || slices.ContainsFunc(g.made, func(p platform.Platform) bool { return sameMachine(p, e.Platform) }) {
			continue
		}
		if name := e.Platform.String(); !slices.Contains(lost, name) {
			lost = append(lost, name)
		}
	}
	if len(lost) == 0 {
		return img.Root().Digest, nil
	}
	return "", &dropsError{tag: tag, lost: lost}
}

// sameMachine compares platforms without the version of the operating system: a newer one takes the place of an older.
func sameMachine(a, b platform.Platform) bool {
	return a.OS == b.OS && a.Arch == b.Arch && a.Variant == b.Variant
}

// dropsError is of kind ErrDrops.
type dropsError struct {
	tag  ref.Ref
	lost []string
}

func (e *dropsError) Error() string {
	return fmt.Sprintf("%s has %s, which this build does not make: %v", e.tag, strings.Join(e.lost, ", "), ErrDrops)
}
func (e *dropsError) Is(target error) bool { return target == ErrDrops }
func (e *dropsError) Hint() string {
	return "--append keeps what the tag has and adds to it; --drop-platforms makes it what is built"
}

// checkTagging holds what is asked for tags to what can be done, before anything is built.
func checkTagging(req Request, o Options, plans []plan) error {
	switch {
	case req.Tagging != KeepTags && req.Stage != "":
		return fmt.Errorf("%w: a stage has tags of its own: there is nothing to append to or to drop from", stage.ErrInvalid)
	case req.Tagging == AppendToTags && o.Clock == nil:
		return errors.New("appending to tags needs a clock")
	case req.Tagging == AppendToTags && !slices.ContainsFunc(plans, func(p plan) bool { return p.append }):
		return fmt.Errorf("%w: nothing to append to: a tag in a registry, or a name in the store, takes more platforms", output.ErrInvalid)
	}
	return nil
}

package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Options tunes Merge. The zero value looks once.
type Options struct {
	transfer.MergeOptions
	Expect []Expected
	Wait   time.Duration // how long to wait for required platforms
	Grace  time.Duration // how long to wait for optional ones once the required are there
	// Waiting, if not nil, is told what is missing whenever that has changed, before a wait.
	Waiting func(missing []Expected)
	// Pause waits before the n-th look; nil waits one second, then more and more up to 15.
	Pause func(ctx context.Context, n int) error
}

// Merged is what Merge made.
type Merged struct {
	transfer.Merged
	Missing []platform.Platform // optional ones
	Found   []Image             // in the order of Options.Expect
}

// Image is one that a machine has left.
type Image struct {
	Platform platform.Platform
	Desc     ocispec.Descriptor // the image's manifest
	Root     ocispec.Descriptor // what the tag points at: a record, or a single image

	tag ref.Ref
	all map[string]string // annotations for the whole index
}

// Merge waits for the images of stage id in repository repo, makes one index of them and of further sources and pushes it
// under names. It changes nothing unless every required platform is there, and may be run again at any time: equal images
// give an equal index. What is missing at the end of the wait is an error of kind ErrMissing.
func Merge(ctx context.Context, env transfer.Env, repo ref.Ref, id string, names []ref.Ref, more []transfer.MergeSource, o Options) (Merged, error) {
	var done Merged
	if err := CheckID(id); err != nil {
		return done, err
	}
	if env.Registry == nil || repo.Kind != ref.Registry {
		return done, fmt.Errorf("%w: %s is no repository of a registry", ErrInvalid, repo)
	}
	if len(o.Expect) == 0 {
		return done, fmt.Errorf("%w: nothing says which platforms to expect", ErrInvalid)
	}
	l := looker{env: env, repo: repo, id: id, o: o, found: make([]*Image, len(o.Expect)), denied: make([]error, len(o.Expect))}
	if err := l.wait(ctx); err != nil {
		return done, err
	}
	var sources []transfer.MergeSource
	set := map[string]string{}
	var missing []string
	for i, e := range o.Expect {
		img := l.found[i]
		if img == nil {
			missing = append(missing, e.Platform.String())
			done.Missing = append(done.Missing, e.Platform)
			continue
		}
		done.Found = append(done.Found, *img)
		sources = append(sources, transfer.MergeSource{Ref: repo.WithDigest(img.Root.Digest)})
		for k, v := range img.all { // the first that says it counts
			if _, ok := set[k]; !ok {
				set[k] = v
			}
		}
	}
	if len(missing) > 0 {
		set[AnnotationMissing] = strings.Join(missing, ",")
	}
	var all []transfer.Annotation
	for k, v := range set {
		all = append(all, transfer.Annotation{Level: transfer.LevelIndex, Key: k, Value: v})
	}
	o.Annotations = append(all, o.Annotations...)
	o.Rebuild = true
	var err error
	done.Merged, err = transfer.Merge(ctx, env, names, append(sources, more...), o.MergeOptions)
	return done, err
}

// looker looks for the images of a stage.
type looker struct {
	env   transfer.Env
	repo  ref.Ref
	id    string
	o     Options
	found []*Image // of o.Expect

	denied []error // of o.Expect: the registry's answer when it was no "not found"
}

// wait looks until every required image is there, and for optional ones a while longer.
func (l *looker) wait(ctx context.Context) error {
	pause := l.o.Pause
	if pause == nil {
		pause = func(ctx context.Context, n int) error {
			d := min(time.Second<<min(n, 4), 15*time.Second)
			return sleep(ctx, d-d/8+rand.N(d/4))
		}
	}
	start := l.now()
	var complete time.Time // when the required were there
	told := -1
	for n := 0; ; n++ {
		if err := l.look(ctx); err != nil {
			return err
		}
		missing, required := l.missing()
		now := l.now()
		switch {
		case len(missing) == 0:
			return nil
		case required:
			if now.Sub(start) >= l.o.Wait {
				return l.incomplete(missing)
			}
		default:
			if complete.IsZero() {
				complete = now
			}
			if now.Sub(complete) >= l.o.Grace {
				return nil
			}
		}
		if l.o.Waiting != nil && len(missing) != told {
			told = len(missing)
			l.o.Waiting(missing)
		}
		if err := pause(ctx, n); err != nil {
			return err
		}
	}
}

func (l *looker) now() time.Time {
	if l.env.Now == nil {
		return time.Time{}
	}
	return l.env.Now()
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// missing lists what is not found, and reports whether any of it is required.
func (l *looker) missing() (list []Expected, required bool) {
	for i, e := range l.o.Expect {
		if l.found[i] == nil {
			list = append(list, e)
			required = required || !e.Optional
		}
	}
	return list, required
}

// incomplete is the error about required images that are missing.
func (l *looker) incomplete(missing []Expected) error {
	var names, tags []string
	for _, e := range missing {
		if e.Optional {
			continue
		}
		names = append(names, e.Platform.String())
		if tag, err := Tag(l.id, e.Platform); err == nil {
			tags = append(tags, tag)
		}
	}
	after := ""
	if l.o.Wait > 0 {
		after = fmt.Sprintf(" after %s", l.o.Wait)
	}
	err := fmt.Errorf("%s in stage %s of %s: %w%s: there is no tag %s", strings.Join(names, ", "), l.id, l.repo.Repository(), ErrMissing, after, strings.Join(tags, ", "))
	for _, denied := range l.denied {
		if denied != nil {
			return fmt.Errorf("%w, or it may not be read: %w", err, denied)
		}
	}
	return err
}

// look asks for the tags of what was not found so far, all at once.
func (l *looker) look(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for i, e := range l.o.Expect {
		if l.found[i] != nil {
			continue
		}
		g.Go(func() error {
			tag, err := Tag(l.id, e.Platform)
			if err != nil {
				return err
			}
			img, err := read(gctx, l.env, l.repo.WithTag(tag), e.Platform)
			if errors.Is(err, registry.ErrNotFound) || errors.Is(err, source.ErrNotFound) {
				// Some registries deny what they do not have: a repository before its first push. So one waits, and tells it at the end.
				if l.denied[i] = nil; errors.Is(err, registry.ErrDenied) {
					l.denied[i] = err
				}
				return nil
			}
			l.found[i] = img
			return err
		})
	}
	return g.Wait()
}

// read reads what a machine has left.
func read(ctx context.Context, env transfer.Env, tag ref.Ref, want platform.Platform) (_ *Image, err error) {
	now, err := env.Registry.Head(ctx, tag) // of the place itself: a mirror may have what an earlier run left
	if err != nil {
		return nil, err
	}
	if now.Digest == "" { // why, says a GET
		_, _, err := env.Registry.Original(ctx, tag)
		return nil, errors.Join(registry.ErrNotFound, err)
	}
	img, err := env.Opener().Open(ctx, tag.WithDigest(now.Digest))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	out := &Image{Platform: want, Root: img.Root(), tag: tag, all: map[string]string{}}
	list, err := source.List(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tag, err)
	}
	for _, e := range list {
		switch {
		case e.Kind != source.EntryImage:
		case e.Err != nil:
			return nil, fmt.Errorf("%s: %w", tag, e.Err)
		case e.Platform != want:
			return nil, fmt.Errorf("%w: %s holds an image of %s", ErrInvalid, tag, e.Platform)
		case out.Desc.Digest != "":
			return nil, fmt.Errorf("%w: %s holds two images", ErrInvalid, tag)
		default:
			out.Desc = e.Desc
		}
	}
	if out.Desc.Digest == "" {
		return nil, fmt.Errorf("%w: %s holds no image", ErrInvalid, tag)
	}
	if index.IsIndex(out.Root.MediaType) {
		idx, err := source.ReadIndex(ctx, img, out.Root)
		if err != nil {
			return nil, err
		}
		for k, v := range idx.Annotations {
			if !strings.HasPrefix(k, annotations) {
				out.all[k] = v
			}
		}
	}
	return out, nil
}

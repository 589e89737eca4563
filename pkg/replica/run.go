package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Options tunes Run. The zero value is the recommended one.
type Options struct {
	DryRun      bool // change nothing, and say what would be
	KeepGoing   bool // after a failure, do the rest
	Concurrency int  // transfers at once, of all images together; 0: 32
	// Sleep waits; nil waits by the clock.
	Sleep func(context.Context, time.Duration) error
	// Each, if not nil, is told of every image as it is done, one at a time.
	Each func(Image)
}

// Status is what became of one image.
type Status string

// What becomes of images.
const (
	Copied    Status = "copied"
	WouldCopy Status = "would copy"
	Unchanged Status = "unchanged"
	Failed    Status = "failed"
)

// Image is one tag.
type Image struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Status Status        `json:"status"`
	Digest digest.Digest `json:"digest,omitempty"` // at the destination
	Blobs  int           `json:"blobs"`            // that moved, or would
	Bytes  int64         `json:"bytes"`            // of blobs and manifests
	Notes  []string      `json:"notes,omitempty"`
	Error  string        `json:"error,omitempty"`
}

// Report is what a run did, in the order of the file.
type Report struct {
	Images    []Image `json:"images"`
	Copied    int     `json:"copied"` // with DryRun: that would be
	Unchanged int     `json:"unchanged"`
	Failed    int     `json:"failed"`
	Bytes     int64   `json:"bytes"`
	Requests  int64   `json:"requests"` // to registries
}

// atOnce is how many images are under way at one time.
const atOnce = 4

// Run does what a plan says. The report is of what was done, also when there is an error.
func Run(ctx context.Context, env transfer.Env, p Plan, o Options) (Report, error) {
	if o.Concurrency <= 0 {
		o.Concurrency = 32
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	now := env.Now
	if now == nil {
		now = func() time.Time { return time.Time{} }
	}
	r := runner{env: env, plan: p, o: o, bytes: newLimiter(float64(p.Bytes), now, o.Sleep)}
	before := requests(env)
	err := r.run(ctx)
	rep := r.report()
	rep.Requests = requests(env) - before
	return rep, err
}

// Limit spaces requests to the plan's number a second, for [registry.Options].
func (p *Plan) Limit(now func() time.Time) func(context.Context) error {
	l := newLimiter(p.Requests, now, sleep)
	if l == nil {
		return nil
	}
	return func(ctx context.Context) error { return l.wait(ctx, 1) }
}

func requests(env transfer.Env) int64 {
	if env.Registry == nil {
		return 0
	}
	return env.Registry.Requests()
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

type runner struct {
	env   transfer.Env
	plan  Plan
	o     Options
	bytes *limiter

	noting sync.Mutex // guards what follows
	images map[[2]int]Image
	errs   map[[2]int]error
}

// task is one image: where it stands in the file, and where it goes.
type task struct {
	at       [2]int // job, tag
	job      *Job
	from, to ref.Ref
	known    []string // tags of the repository; nil: not asked for
}

func (r *runner) run(ctx context.Context) error {
	r.images, r.errs = map[[2]int]Image{}, map[[2]int]error{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range r.plan.Jobs {
		if gctx.Err() != nil {
			break
		}
		tasks, err := r.tasks(gctx, i)
		if err != nil && !r.o.KeepGoing {
			return errors.Join(err, g.Wait())
		}
		for _, t := range tasks {
			g.Go(func() error { return r.one(gctx, t) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return r.failures()
}

// tasks lists what a job is about. What is listed and not there fails by itself.
func (r *runner) tasks(ctx context.Context, i int) ([]task, error) {
	j := &r.plan.Jobs[i]
	var tags, missing, known []string // known: all, so that each copy need not ask for them
	if j.Select.listed() && j.Bare {
		tags = slices.Compact(slices.Sorted(slices.Values(j.Select.Names)))
	} else {
		images, every, err := transfer.Tags(ctx, r.env, j.From)
		if err != nil {
			r.failed([2]int{i, 0}, j.From.Repository(), j.To.String(), err)
			return nil, err
		}
		tags, missing = j.Select.pick(images)
		known = append([]string{}, every...)
	}
	var out []task
	for n, tag := range tags {
		t := task{at: [2]int{i, n}, job: j, known: known}
		if d := digest.Digest(tag); d.Validate() == nil {
			t.from, t.to = j.From.WithDigest(d), j.To.WithDigest(d)
			if j.To.Kind != ref.Registry { // elsewhere content has a name, or is nothing's
				t.to = j.To.WithTag(d.Algorithm().String() + "-" + d.Encoded()[:min(32, len(d.Encoded()))])
			}
		} else {
			t.from, t.to = j.From.WithTag(tag), j.To.WithTag(tag+j.Suffix)
		}
		out = append(out, t)
	}
	for n, tag := range missing {
		err := fmt.Errorf("%w: %s has no tag %q", source.ErrNotFound, j.From.Repository(), tag)
		r.failed([2]int{i, len(tags) + n}, j.From.WithTag(tag).String(), j.To.WithTag(tag).String(), err)
		if !r.o.KeepGoing {
			return out, err
		}
	}
	return out, nil
}

// one copies one image.
func (r *runner) one(ctx context.Context, t task) error {
	o := transfer.Options{
		Platforms: t.job.Platforms, Sparse: t.job.Sparse, Refresh: true, SourceTags: t.known, DryRun: r.o.DryRun,
		Concurrency: max(r.o.Concurrency/atOnce, 1),
	}
	if t.job.Bare {
		o.Referrers = transfer.NoReferrers
	}
	if r.bytes != nil {
		o.Pace = r.bytes.wait
	}
	rep, err := transfer.Copy(ctx, r.env, t.from, t.to, o)
	if err != nil {
		if ctx.Err() != nil && !r.o.KeepGoing { // because of another's failure
			return err
		}
		r.failed(t.at, t.from.String(), t.to.String(), err)
		if r.o.KeepGoing {
			return nil
		}
		return err
	}
	img := Image{From: t.from.String(), To: t.to.String(), Status: Copied, Blobs: rep.Blobs + rep.Mounted, Bytes: rep.Bytes, Notes: rep.Notes}
	if len(rep.Roots) > 0 {
		img.Digest = rep.Roots[0].Digest
	}
	switch {
	case rep.Manifests == 0 && rep.Blobs == 0:
		img.Status = Unchanged
	case r.o.DryRun:
		img.Status = WouldCopy
	}
	r.note(t.at, img)
	return nil
}

func (r *runner) failed(at [2]int, from, to string, err error) {
	r.noting.Lock()
	r.errs[at] = err
	r.noting.Unlock()
	r.note(at, Image{From: from, To: to, Status: Failed, Error: err.Error()})
}

func (r *runner) note(at [2]int, img Image) {
	r.noting.Lock()
	defer r.noting.Unlock()
	r.images[at] = img
	if r.o.Each != nil {
		r.o.Each(img)
	}
}

// ordered are the places of images in the order of the file.
func ordered[V any](m map[[2]int]V) [][2]int {
	keys := make([][2]int, 0, len(m))
	for at := range m {
		keys = append(keys, at)
	}
	slices.SortFunc(keys, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	return keys
}

func (r *runner) failures() error {
	r.noting.Lock()
	defer r.noting.Unlock()
	var errs []error
	for _, at := range ordered(r.errs) {
		errs = append(errs, r.errs[at])
	}
	return errors.Join(errs...)
}

func (r *runner) report() Report {
	r.noting.Lock()
	defer r.noting.Unlock()
	rep := Report{Images: []Image{}}
	for _, at := range ordered(r.images) {
		img := r.images[at]
		rep.Images = append(rep.Images, img)
		rep.Bytes += img.Bytes
		switch img.Status {
		case Unchanged:
			rep.Unchanged++
		case Failed:
			rep.Failed++
		default:
			rep.Copied++
		}
	}
	return rep
}

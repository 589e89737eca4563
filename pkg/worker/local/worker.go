// Package local solves vertices on this machine: base images come through package
// source, files become layers without being unpacked, processes run in package
// sandbox.
//
// # Invariants
//
//   - The table of contents of a layer is in the store before a Result names it; its bytes are there, whole, or it is known where they are.
//   - Nothing outside the store and the sandbox's scratch directories is written.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/cdi"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// ErrSecret is the kind of "a step needs a secret that was not given".
var ErrSecret = errors.New("missing secret")

// ErrNotAllowed is the kind of "a step wants what nobody allowed".
var ErrNotAllowed = errors.New("not allowed")

// Options is what a worker works with. Store and Opener are required.
type Options struct {
	Store    *store.Store
	Opener   *source.Opener
	Contexts map[string]string // name → directory
	Sandbox  sandbox.Options
	Secret   func(id string) (data []byte, ok bool, err error)
	// SSH gives the socket of an ssh agent by its id ("default"); nil: none.
	SSH func(id string) (socket string, ok bool)
	// Device gives what comes with a device of this machine, by its full name; nil: there are none.
	Device func(name string) (cdi.Edits, bool)
	// Epoch is SOURCE_DATE_EPOCH: the time that directories get in which a file operation changes something.
	Epoch    *int64
	Insecure bool              // RUN --security=insecure is allowed
	Limits   sandbox.Resources // of every step
	LogLimit int64             // bytes of a step's output that are passed on; 0: all
	// Accelerate is where native programs come from that stand in for those of foreign images (package accel); none: nowhere.
	Accelerate []string
	// Authorities are certificates in PEM that programs of steps trust beside those of the image; nil: none.
	Authorities []byte
	OnError     func(FailedStep) // called for steps that failed, one at a time; nil: nobody looks at what they left
	Pins        Pins             // nil: names mean what they mean now
	Pull        bool             // ask for tags again that were resolved before
	NoCache     bool
	NoFacts     bool // do not look at what files of layers say
	// PackedFrom is how many bytes a layer has that is kept compressed only when nothing is known to read it; 0 is 128 MiB. Of a
	// smaller one the uncompressed form is worth its room: the next build finds in it the small files that did not change.
	PackedFrom int64
	Remote     Remote // nil: all layers are made or pulled here
	Events     event.Sink
}

// Pins say what names of images mean.
type Pins interface {
	// Pin gives the digest that ref, a name without one, is to be opened by; "" leaves it to the name.
	Pin(ref string) (digest.Digest, error)
	// Resolved is told what ref led to for one platform: root is what was opened, manifest the image's. An error refuses it.
	Resolved(ref string, p platform.Platform, root, manifest digest.Digest) error
}

// Worker runs vertices on this machine. Close it after use.
type Worker struct {
	o     Options
	trees *snapshots
	bases bases
	lazy  elsewhere
	press atomic.Pointer[Press]
	tocs  recentTOCs

	virtual virtuals

	native  nativeTools
	shells  sync.Mutex // one asks at a time
	watched sync.Once  // that limits are kept by watching was said

	spoolMu sync.Mutex // guards spool
	spool   *scratchDir

	// root is held for reading by who may read files of this machine, steps in place; nil: steps take none of them away.
	root *sync.RWMutex

	expected atomic.Int32 // how many processes will run at once; 0: nobody said
	poolOnce sync.Once
	pool     *sandbox.Pool
	poolErr  error
	warming  sync.WaitGroup
	restOnce sync.Once
	rest     sync.WaitGroup
	restErr  error // once rest is done
}

var _ solve.Worker = (*Worker)(nil)

// New makes a worker. The sandbox is started when the first process is to be run.
func New(o Options) *Worker {
	w := &Worker{o: o}
	w.virtual.files, w.virtual.sums, w.virtual.dirs = map[digest.Digest]*source.Files{}, map[string]*source.Sums{}, map[string]*sourceDir{}
	w.trees = &snapshots{worker: w, ready: map[digest.Digest]*snapshot{}}
	w.bases.pulled, w.bases.pins = map[string]*base{}, o.Pins
	if o.Sandbox.Mode == sandbox.ModeInPlace {
		w.root = &sync.RWMutex{}
		w.o.Sandbox.Keep, w.o.Sandbox.Away = []string{o.Store.Root()}, away{w.root}
	}
	return w
}

// Close ends the sandbox and removes what it left.
func (w *Worker) Close() error {
	errs := []error{w.bases.close(), w.closeVirtual()}
	if w.spool != nil {
		errs = append(errs, w.spool.remove(os.RemoveAll))
	}
	w.Rest()
	w.rest.Wait()
	return errors.Join(append(errs, w.restErr)...)
}

// Rest says that no process will be run any more: the sandbox begins to end, and what it left to go, while what came of it is
// written. Close waits for that.
func (w *Worker) Rest() {
	w.restOnce.Do(func() {
		w.warming.Wait()
		if w.pool != nil {
			w.rest.Go(func() { w.restErr = errors.Join(w.trees.close(), w.pool.Close()) })
		}
	})
}

// Expect says how many processes will run at once, most likely: their agents are started together. now: they will run, whatever
// the cache has, so that they are started while their inputs are looked for.
func (w *Worker) Expect(ctx context.Context, processes int, now bool) {
	w.expected.Store(int32(processes)) //nolint:gosec // few
	if now {
		w.warming.Go(func() { _, _ = w.sandbox(ctx) }) // who needs it is told what went wrong
	}
}

// sandbox starts the pool of agents on first use.
func (w *Worker) sandbox(ctx context.Context) (*sandbox.Pool, error) {
	w.poolOnce.Do(func() {
		// The pool outlives the vertex that asked first.
		o := w.o.Sandbox
		o.Ahead = int(w.expected.Load()) - 1
		w.pool, w.poolErr = sandbox.NewPool(context.WithoutCancel(ctx), o)
		if w.poolErr == nil {
			w.poolErr = w.trees.open(w.pool)
		}
		if w.poolErr == nil && w.pool.Notice() != "" {
			w.o.Events.Emit(event.Event{Kind: event.Warning, Text: w.pool.Notice()})
		}
	})
	return w.pool, w.poolErr
}

// Key implements solve.Worker.
func (w *Worker) Key(ctx context.Context, v *graph.Vertex, inputs []solve.Result) (digest.Digest, error) {
	defer w.Reading()()
	switch op := v.Op.(type) {
	case graph.Image, graph.Local, graph.Merge, graph.Diff, graph.HTTP, graph.Git:
		return "", nil // their content is what others' keys are made of
	case graph.File:
		return w.fileKey(ctx, op, inputs)
	case graph.Exec:
		return w.execKey(ctx, v, op, inputs)
	case graph.Layer:
		return w.layerKey(ctx, op, inputs)
	case graph.Copy:
		return w.copyKey(ctx, op, inputs)
	case graph.Remove, graph.Accounts:
		return inputs[0].Identity(), nil
	}
	return "", fmt.Errorf("this worker does not know the operation %q", v.Op.Kind())
}

// Run implements solve.Worker.
func (w *Worker) Run(ctx context.Context, v *graph.Vertex, inputs []solve.Result) (solve.Result, error) {
	defer w.Reading()()
	ctx = w.pressing(ctx, v)
	switch op := v.Op.(type) {
	case graph.Image:
		return w.image(ctx, v, op)
	case graph.Local:
		if op.Raw {
			return w.files(ctx, op)
		}
		return w.local(ctx, op)
	case graph.HTTP:
		return w.http(ctx, op)
	case graph.Git:
		return w.git(ctx, op)
	case graph.File:
		return w.file(ctx, op, inputs)
	case graph.Merge:
		return merge(inputs), nil
	case graph.Diff:
		return w.diff(ctx, inputs)
	case graph.Exec:
		return w.exec(ctx, v, op, inputs)
	case graph.Layer:
		return w.change(ctx, inputs[0], time.Unix(op.Time, 0), func(b *layer.Builder, view *layer.View) error {
			return w.entries(ctx, b, view, op)
		})
	case graph.Copy:
		return w.copy(ctx, op, inputs)
	case graph.Remove:
		return w.remove(ctx, op, inputs[0])
	case graph.Accounts:
		return w.accounts(ctx, op, inputs[0])
	}
	return solve.Result{}, fmt.Errorf("this worker does not know the operation %q", v.Op.Kind())
}

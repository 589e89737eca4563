package registry

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errIdle is the cause when nothing moved for too long.
var errIdle = errors.New("the registry sent nothing for too long")

// watch ends a request on which nothing moves.
type watch struct {
	ctx    context.Context //nolint:containedctx // it is the context of exactly one request
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func newWatch(ctx context.Context, d time.Duration) *watch {
	w := &watch{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(d, func() { w.cancel(errIdle) })
	return w
}

func (w *watch) reset(d time.Duration) { w.timer.Reset(d) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// leastProgress is how many bytes must come within the idle time: a registry that sends one now and then is no better than
// one that is silent.
const leastProgress = 1 << 10

// recvBody is the body of an answer under watch.
type recvBody struct {
	io.ReadCloser
	w    *watch
	idle time.Duration
	left time.Duration // until leastProgress must be made
	got  int           // since then
}

func (b *recvBody) Read(p []byte) (int, error) {
	// Only the time that is spent waiting for the registry counts.
	if b.got >= leastProgress || b.left == 0 {
		b.got, b.left = 0, b.idle
	}
	began := time.Now() //nolint:forbidigo // how long it waits decides when it ends, and no output
	b.w.reset(b.left)
	n, err := b.ReadCloser.Read(p)
	b.w.timer.Stop()
	b.got += n
	b.left = max(b.left-time.Since(began), 1)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *recvBody) Close() error {
	err := b.ReadCloser.Close()
	b.w.stop()
	return err
}

// sendBody is the body of a request under watch, of exactly left bytes: a
// source that ends early or goes on is an error of the source.
type sendBody struct {
	io.ReadCloser
	w          *watch
	idle, wait time.Duration

	state sync.Mutex
	left  int64
	err   error // of the source

	sent bool // all of it, without a Read
}

func (b *sendBody) Read(p []byte) (int, error) {
	if b.sent {
		return 0, io.EOF
	}
	// The transport reads on when what it has read before is on its way; the
	// time that the source takes is not the registry's.
	b.w.timer.Stop()
	n, err := b.ReadCloser.Read(p)
	b.state.Lock()
	defer b.state.Unlock()
	b.left -= int64(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
	case b.left < 0:
		b.err = errors.New("it is longer than its descriptor says")
		err = b.err
	case err != nil && b.left > 0:
		b.err = io.ErrUnexpectedEOF
		err = b.err
	}
	if b.left > 0 {
		b.w.reset(b.idle)
	} else {
		b.w.reset(b.wait)
	}
	return n, err
}

// fail notes an error of the source.
func (b *sendBody) fail(err error) error {
	b.state.Lock()
	defer b.state.Unlock()
	b.err = err
	return err
}

func (b *sendBody) failed() error {
	b.state.Lock()
	defer b.state.Unlock()
	return b.err
}

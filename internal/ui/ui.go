// Package ui shows events to people and programs: a log, a block that is redrawn
// on a terminal, only what failed, or JSON.
//
// # Invariants
//
//   - A sink never waits for the terminal or file that is written to.
//   - What a step prints can neither move the cursor of a terminal nor change what else is on it.
//   - Memory is bounded, whatever steps print and however slow the reader is.
//   - Times are those of the events, not of their display.
package ui

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// ErrMode is the kind of the error for a mode that does not exist.
var ErrMode = errors.New("unknown progress mode")

// Mode is how events are shown.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // TTY on a terminal that can, else Plain
	Plain   Mode = "plain"   // a log
	TTY     Mode = "tty"     // redrawn; Plain where that cannot be
	Quiet   Mode = "quiet"   // warnings, and the output of what failed
	RawJSON Mode = "rawjson" // an object a line
)

// ParseMode reads the value of --progress or BUILDKIT_PROGRESS. "" is auto, "none" is quiet.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Auto, nil
	case "none":
		return Quiet, nil
	case Auto, Plain, TTY, Quiet, RawJSON:
		return m, nil
	}
	return "", fmt.Errorf("%w %q: want auto, plain, tty, quiet or rawjson", ErrMode, s)
}

// Options is what a display knows of the world. The zero value is a file, and a clock that stands still.
type Options struct {
	Now     func() time.Time           // nil: no time passes
	Size    func() (columns, rows int) // of the terminal that is written to; nil, or no columns: it is none
	Ticks   <-chan time.Time           // when a terminal is redrawn; nil: ten times a second
	Term    string                     // $TERM
	NoColor bool                       // no colours: $NO_COLOR is set
	Title   string                     // of the redrawn block; "" is "Building"
	Limit   int                        // bytes of output that may wait to be shown before more is dropped; 0: 32 MiB
	Tail    int                        // lines of a failed step that are shown again; 0: 20
}

// terminal reports whether o's terminal can be drawn on.
func (o Options) terminal() bool {
	return o.columns() > 0 && o.Term != "" && o.Term != "dumb"
}

func (o Options) columns() int {
	if o.Size == nil {
		return 0
	}
	columns, _ := o.Size()
	return columns
}

// renderer is one mode. Its methods are called by one goroutine.
type renderer interface {
	event(at time.Time, e event.Event)
	flush()             // everything of now is known: write
	tick(now time.Time) // time has passed
	clear()             // nothing that will be drawn over is left on the terminal
	close(now time.Time)
}

// Display shows events until it is closed.
type Display struct {
	now   func() time.Time
	limit int
	out   renderer
	wake  chan struct{} // something was queued, or the display is closed
	print chan func()
	done  chan struct{} // closed when everything is written

	queueing sync.Mutex // guards what follows
	queue    []stamped
	waiting  int // bytes of output in queue
	dropped  int // bytes of output that were not queued
	closed   bool
}

type stamped struct {
	at time.Time
	e  event.Event
}

const (
	defaultLimit = 32 << 20
	defaultTail  = 20
	redraw       = 100 * time.Millisecond
)

// New starts a display that writes to w. Whoever made it closes it.
func New(mode Mode, w io.Writer, o Options) *Display {
	if o.Now == nil {
		o.Now = func() time.Time { return time.Time{} }
	}
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	if o.Tail == 0 {
		o.Tail = defaultTail
	}
	if o.Title == "" {
		o.Title = "Building"
	}
	d := &Display{now: o.Now, limit: o.Limit, wake: make(chan struct{}, 1), print: make(chan func()), done: make(chan struct{})}
	ticks, stop := o.Ticks, func() {}
	out := &writer{w: w}
	switch {
	case mode == RawJSON:
		d.out = newRaw(out)
	case mode == Quiet:
		d.out = newQuiet(out, o)
	case mode != Plain && o.terminal():
		if ticks == nil {
			t := time.NewTicker(redraw)
			ticks, stop = t.C, t.Stop
		}
		d.out = newTTY(out, o)
	default:
		d.out = newPlain(out, o)
	}
	go d.run(ticks, stop)
	return d
}

// Sink returns where events go. It may be called concurrently, and after Close does nothing.
func (d *Display) Sink() event.Sink {
	return func(e event.Event) {
		at := d.now()
		d.queueing.Lock()
		defer d.queueing.Unlock()
		switch {
		case d.closed:
			return
		case e.Kind == event.Log && d.waiting+len(e.Data) > d.limit:
			d.dropped += len(e.Data)
			return
		}
		if e.Data != nil { // the emitter may use its buffer again
			e.Data = append([]byte(nil), e.Data...)
			d.waiting += len(e.Data)
		}
		d.queue = append(d.queue, stamped{at, e})
		d.signal()
	}
}

// Close shows what is left, and waits until it is written.
func (d *Display) Close() {
	d.queueing.Lock()
	d.closed = true
	d.signal()
	d.queueing.Unlock()
	<-d.done
}

// Writer returns a writer to w, which may be the terminal that the display draws on: what is written to it goes above what is
// under way and is not drawn over. It waits for w, and after Close is w.
func (d *Display) Writer(w io.Writer) io.Writer { return onTop{d, w} }

type onTop struct {
	d *Display
	w io.Writer
}

func (o onTop) Write(p []byte) (n int, err error) {
	written := make(chan struct{})
	write := func() {
		defer close(written)
		n, err = o.w.Write(p)
	}
	select {
	case o.d.print <- write:
		<-written
	case <-o.d.done:
		write()
	}
	return n, err //nolint:wrapcheck // it is w's
}

// signal is called with queueing held.
func (d *Display) signal() {
	select {
	case d.wake <- struct{}{}:
	default: // it is awake
	}
}

func (d *Display) run(ticks <-chan time.Time, stop func()) {
	defer close(d.done)
	defer stop()
	for {
		select {
		case <-d.wake:
			d.queueing.Lock()
			batch, dropped, closed := d.queue, d.dropped, d.closed
			d.queue, d.waiting, d.dropped = nil, 0, 0
			d.queueing.Unlock()
			for _, s := range batch {
				d.out.event(s.at, s.e)
			}
			if dropped > 0 {
				d.out.event(d.now(), event.Event{
					Kind: event.Warning, Text: fmt.Sprintf("%s of output were dropped: they came faster than they could be shown", bytesText(int64(dropped))),
				})
			}
			if closed {
				d.out.close(d.now())
				return
			}
			d.out.flush()
		case write := <-d.print:
			d.out.clear()
			write()
		case <-ticks:
			d.out.tick(d.now())
		}
	}
}

// writer ends with the first error: a build does not fail because its progress cannot be written.
type writer struct {
	w    io.Writer
	dead bool
}

func (w *writer) Write(p []byte) (int, error) {
	if !w.dead {
		_, err := w.w.Write(p)
		w.dead = err != nil
	}
	return len(p), nil
}

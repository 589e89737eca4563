package output

import (
	"io"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// progress counts the bytes of one output.
type progress struct {
	sink event.Sink
	step int64

	counting sync.Mutex // guards e and shown
	e        event.Event
	shown    int64
}

// track starts the progress of s: ID is that of its vertex in a build.
func track(sink event.Sink, s Spec, total int64) *progress {
	return &progress{
		sink: sink,
		step: max(256<<10, total/100),
		e:    event.Event{Kind: event.Progress, ID: s.title(), Item: "writing " + s.Dest, Total: total},
	}
}

func (p *progress) add(n int64) {
	p.counting.Lock()
	defer p.counting.Unlock()
	p.e.Current += n
	if p.e.Current-p.shown >= p.step {
		p.shown = p.e.Current
		p.sink.Emit(p.e)
	}
}

// done reports the end.
func (p *progress) done() {
	p.counting.Lock()
	defer p.counting.Unlock()
	if p.e.Total == 0 {
		p.e.Total = p.e.Current
	}
	p.sink.Emit(p.e)
}

// writer counts what goes to w.
func (p *progress) writer(w io.Writer) io.Writer { return &countingWriter{w, p} }

type countingWriter struct {
	w io.Writer
	p *progress
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.p.add(int64(n))
	return n, err
}

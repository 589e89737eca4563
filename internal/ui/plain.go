package ui

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// plain is a log: "#N [linux/arm64 2/3] RUN ...", the step's output behind its number and time, and how it ended.
type plain struct {
	w     *bufio.Writer
	clean func(string) string // of output
	tracker
}

// shownEvery is the time between two lines about one transfer.
const shownEvery = 5 * time.Second

func newPlain(w io.Writer, o Options) *plain {
	p := &plain{w: bufio.NewWriterSize(w, 32<<10), tracker: newTracker(o), clean: func(s string) string { return s }}
	if o.columns() > 0 {
		p.clean = screenText
	}
	return p
}

func (p *plain) event(at time.Time, e event.Event) {
	switch e.Kind {
	case event.VertexStart:
		p.begin(at, e)
	case event.Log:
		k := p.begin(at, e)
		p.log(k, at, e, func(l logLine) { p.output(k, l) })
	case event.VertexDone:
		k := p.begin(at, e)
		p.end(k, at, e, func(l logLine) { p.output(k, l) })
		p.ending(k)
	case event.Progress:
		p.moved(at, e)
	case event.Warning:
		p.printf("%s\n", warning(e))
	}
}

// begin returns the vertex's task, announced when it is new.
func (p *plain) begin(at time.Time, e event.Event) *task {
	k, isNew := p.start(e.ID, at, e)
	if isNew {
		p.printf("#%d %s\n", k.n, k.title)
	}
	return k
}

func (p *plain) output(k *task, l logLine) {
	p.printf("#%d %.3f %s\n", k.n, l.after.Seconds(), p.clean(l.text))
}

func (p *plain) ending(k *task) {
	switch k.state {
	case cached:
		p.printf("#%d CACHED\n", k.n)
	case canceled:
		p.printf("#%d CANCELED\n", k.n)
	case failed:
		prefix := "ERROR: "
		for line := range strings.SplitSeq(strings.TrimRight(k.err, "\n"), "\n") {
			p.printf("#%d %s%s\n", k.n, prefix, escape(line))
			prefix = "       "
		}
	case running, finished:
		p.printf("#%d DONE %s\n", k.n, seconds(k.ended.Sub(k.began)))
	}
}

// moved writes a line for a transfer now and then, and when it is over.
func (p *plain) moved(at time.Time, e event.Event) {
	k, m := p.progress(at, e)
	done := ""
	switch {
	case m.over():
		done = " done"
	case at.Sub(m.shown) < shownEvery:
		return
	}
	m.shown = at
	p.printf("#%d %s %s %s%s\n", k.n, m.item, m.amount(), seconds(at.Sub(m.began)), done)
}

func (p *plain) printf(format string, a ...any) { _, _ = fmt.Fprintf(p.w, format, a...) } // writer knows no errors

func (p *plain) flush()         { _ = p.w.Flush() }
func (p *plain) clear()         { p.flush() }
func (p *plain) tick(time.Time) {}

func (p *plain) close(time.Time) {
	p.printf("%s", p.failures(p.clean))
	p.flush()
}

// quiet shows warnings, and the output of what failed, at the end.
type quiet struct {
	w     io.Writer
	clean func(string) string
	tracker
}

func newQuiet(w io.Writer, o Options) *quiet {
	q := &quiet{w: w, tracker: newTracker(o), clean: func(s string) string { return s }}
	if o.columns() > 0 {
		q.clean = screenText
	}
	return q
}

func (q *quiet) event(at time.Time, e event.Event) {
	if q.keep(at, e); e.Kind == event.Warning {
		_, _ = io.WriteString(q.w, warning(e)+"\n")
	}
}

func (q *quiet) flush()          {}
func (q *quiet) clear()          {}
func (q *quiet) tick(time.Time)  {}
func (q *quiet) close(time.Time) { _, _ = io.WriteString(q.w, q.failures(q.clean)) }

// keep takes a vertex's event into the tracker.
func (t *tracker) keep(at time.Time, e event.Event) (k *task) {
	switch e.Kind {
	case event.VertexStart:
		k, _ = t.start(e.ID, at, e)
	case event.Log:
		k, _ = t.start(e.ID, at, e)
		t.log(k, at, e, nil)
	case event.VertexDone:
		k, _ = t.start(e.ID, at, e)
		t.end(k, at, e, nil)
	case event.Progress, event.Warning:
	}
	return k
}

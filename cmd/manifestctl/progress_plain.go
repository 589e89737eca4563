package main

import (
	"fmt"
	"io"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// plainDisplay is a log: "#N [linux/arm64 2/3] RUN ...", the step's output behind its number and time, and how it ended.
type plainDisplay struct {
	w        io.Writer
	terminal bool // escape what steps print
	tracker
}

func newPlainDisplay(w io.Writer, now func() time.Time, terminal bool) *plainDisplay {
	return &plainDisplay{w: w, terminal: terminal, tracker: newTracker(now)}
}

func (d *plainDisplay) show(ev event.Event) {
	switch ev.Kind {
	case event.VertexStart:
		d.begin(ev)
	case event.VertexDone:
		k := d.begin(ev)
		for i := range k.output {
			k.output[i].flush(func(line string) { d.log(k, line) })
		}
		d.end(k, ev)
		d.printf("#%d %s\n", k.n, escape(k.ending()))
	case event.Log:
		k := d.begin(ev)
		k.output[ev.Stream&1].write(ev.Data, func(line string) { d.log(k, line) })
	case event.Progress:
		if k, ended := d.transfer(ev); ended {
			d.printf("#%d %s %s %s done\n", k.n, escape(k.title), k.status, seconds(k.ended.Sub(k.began)))
		}
	case event.Warning:
		d.printf("%s\n", warning(ev))
	}
}

// begin returns the vertex's task, announced when it is new.
func (d *plainDisplay) begin(ev event.Event) *task {
	k, isNew := d.vertex(ev)
	if isNew {
		d.printf("#%d %s\n", k.n, escape(k.title))
	}
	return k
}

func (d *plainDisplay) log(k *task, line string) {
	if d.terminal {
		line = escape(last(line))
	}
	d.printf("#%d %.3f %s\n", k.n, d.now().Sub(k.began).Seconds(), line)
}

// printf writes to the log. A build does not end because its log cannot be written.
func (d *plainDisplay) printf(format string, a ...any) { _, _ = fmt.Fprintf(d.w, format, a...) }

func (d *plainDisplay) close() {}

// warning is a warning's line.
func warning(ev event.Event) string {
	if ev.Source != "" {
		return "WARNING: " + escape(ev.Source+": "+ev.Text)
	}
	return "WARNING: " + escape(ev.Text)
}

// quietDisplay shows warnings, and at the end the output of what failed.
type quietDisplay struct {
	w io.Writer
	tracker
}

func newQuietDisplay(w io.Writer, now func() time.Time) *quietDisplay {
	return &quietDisplay{w: w, tracker: newTracker(now)}
}

func (d *quietDisplay) show(ev event.Event) {
	if ev.Kind == event.Warning {
		fmt.Fprintln(d.w, warning(ev))
		return
	}
	d.keep(ev)
}

func (d *quietDisplay) close() { d.printFailures(d.w) }

// keep takes a vertex's event into the tracker, its output into the task's tail.
func (t *tracker) keep(ev event.Event) (k *task) {
	switch ev.Kind {
	case event.VertexStart:
		k, _ = t.vertex(ev)
	case event.Log:
		k, _ = t.vertex(ev)
		k.output[ev.Stream&1].write(ev.Data, k.tail.add)
	case event.VertexDone:
		k, _ = t.vertex(ev)
		for i := range k.output {
			k.output[i].flush(k.tail.add)
		}
		t.end(k, ev)
	case event.Progress, event.Warning:
	}
	return k
}

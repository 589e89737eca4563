package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// ttyDisplay redraws what is under way at the bottom of a terminal, and leaves what has ended above it.
type ttyDisplay struct {
	w    io.Writer
	size func() (cols, rows int)

	model  sync.Mutex // guards what follows
	began  time.Time
	ended  int      // tasks that are over
	above  []string // lines that go above the redrawn ones with the next drawing
	height int      // lines that were drawn and will be drawn over
	tracker

	stop    chan struct{}
	stopped sync.WaitGroup
}

// redraw is the time between two drawings.
const redraw = 100 * time.Millisecond

func newTTYDisplay(w io.Writer, now func() time.Time, size func() (cols, rows int)) *ttyDisplay {
	d := &ttyDisplay{w: w, size: size, began: now(), tracker: newTracker(now), stop: make(chan struct{})}
	d.stopped.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.draw(false)
			case <-d.stop:
				return
			}
		}
	})
	return d
}

func (d *ttyDisplay) show(ev event.Event) {
	d.model.Lock()
	defer d.model.Unlock()
	switch ev.Kind {
	case event.Warning:
		d.above = append(d.above, warning(ev))
	case event.Progress:
		if _, ended := d.transfer(ev); ended {
			d.ended++
		}
	case event.VertexStart, event.VertexDone, event.Log:
		if k := d.keep(ev); k != nil && k.state != running {
			d.ended++
			d.above = append(d.above, d.line(k))
		}
	}
}

// close draws the end: what has ended, and the output of what failed.
func (d *ttyDisplay) close() {
	close(d.stop)
	d.stopped.Wait()
	d.draw(true)
	d.printFailures(d.w)
}

// draw writes the lines that are final, and below them what is under way.
func (d *ttyDisplay) draw(final bool) {
	d.model.Lock()
	defer d.model.Unlock()
	cols, rows := d.size()
	if cols <= 0 {
		cols, rows = 80, 24
	}
	var b bytes.Buffer
	if d.height > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", d.height)
	}
	for _, line := range d.above {
		fmt.Fprintln(&b, line) // whole: it is not drawn over, so it may wrap
	}
	d.above = d.above[:0]
	lines := []string{fmt.Sprintf("[+] %s (%d/%d)", seconds(d.now().Sub(d.began)), d.ended, len(d.tasks))}
	if !final {
		lines = append(lines, d.underWay(rows-2)...)
	}
	for _, line := range lines {
		fmt.Fprintln(&b, fit(line, cols-1))
	}
	d.height = len(lines)
	_, _ = d.w.Write(b.Bytes()) // a build does not end because its terminal went away
}

// underWay is a line for each running task, and the last output of each as far as there is room.
func (d *ttyDisplay) underWay(room int) []string {
	var open []*task
	for _, k := range d.tasks {
		if k.state == running {
			open = append(open, k)
		}
	}
	hidden := 0
	if room = max(room, 1); len(open) > room {
		room-- // for the line that counts the hidden ones
		hidden = len(open) - room
		open = open[:room]
	}
	spare := room - len(open)
	var lines []string
	for _, k := range open {
		lines = append(lines, d.line(k))
		if n := len(k.tail.lines); n > 0 && spare > 0 {
			spare--
			lines = append(lines, " => => "+escape(last(k.tail.lines[n-1])))
		}
	}
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf(" => %d more", hidden))
	}
	return lines
}

// line is a task on the terminal: its state, its title, its time.
func (d *ttyDisplay) line(k *task) string {
	var b strings.Builder
	b.WriteString(" => ")
	end := d.now()
	switch k.state {
	case cached:
		b.WriteString("CACHED ")
	case failed:
		b.WriteString("ERROR ")
	case canceled:
		b.WriteString("CANCELED ")
	case running, finished:
	}
	if k.state != running {
		end = k.ended
	}
	b.WriteString(escape(k.title))
	if k.status != "" {
		b.WriteString(" " + k.status)
	}
	fmt.Fprintf(&b, "  %s", seconds(end.Sub(k.began)))
	return b.String()
}

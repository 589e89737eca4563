package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// A display shows events. show is called once at a time and must not wait for a terminal; close shows what is left.
type display interface {
	show(ev event.Event)
	close()
}

// progress opens the display for a --progress value. The sink may be called concurrently until close is called.
func (e *env) progress(mode string) (sink event.Sink, closeDisplay func(), err error) {
	d, err := e.newDisplay(mode)
	if err != nil {
		return nil, nil, err
	}
	return event.Serial(d.show), d.close, nil
}

func (e *env) newDisplay(mode string) (display, error) {
	cols, _ := e.size()
	if mode == "auto" {
		mode = "plain"
		if term := e.getenv("TERM"); cols > 0 && term != "" && term != "dumb" && runtime.GOOS != "windows" {
			mode = "tty"
		}
	}
	switch mode {
	case "plain":
		return newPlainDisplay(e.stderr, e.now, cols > 0), nil
	case "tty":
		return newTTYDisplay(e.stderr, e.now, e.size), nil
	case "quiet", "none":
		return newQuietDisplay(e.stderr, e.now), nil
	case "rawjson":
		return &rawDisplay{json.NewEncoder(e.stderr)}, nil
	}
	return nil, usagef("--progress %q: want auto, plain, tty, quiet or rawjson", mode)
}

// rawDisplay is events as JSON, one a line, exactly as they came.
type rawDisplay struct{ out *json.Encoder }

func (d *rawDisplay) show(ev event.Event) { _ = d.out.Encode(ev) } // a build does not end because its log cannot be written
func (d *rawDisplay) close()              {}

// state is how far a task is.
type state int

const (
	running state = iota
	finished
	cached
	failed
	canceled
)

// task is a vertex, or a transfer, as displays know it.
type task struct {
	n      int
	title  string // "[linux/arm64 2/3] RUN uname -a"
	source string // "rootfs.yaml:12"
	began  time.Time
	ended  time.Time
	state  state
	err    string
	status string // of a transfer: "1.2 MB / 3.4 MB"
	output [2]lineBuffer
	tail   tail
}

// tracker gives tasks their numbers and keeps their state.
type tracker struct {
	now   func() time.Time
	tasks []*task // by n, from 1
	open  map[string]*task
}

func newTracker(now func() time.Time) tracker {
	return tracker{now: now, open: map[string]*task{}}
}

// start returns the task with that id, made when it is new or when the one before has ended.
func (t *tracker) start(id, title, source string) (_ *task, isNew bool) {
	if known, ok := t.open[id]; ok {
		return known, false
	}
	k := &task{n: len(t.tasks) + 1, title: title, source: source, began: t.now()}
	t.tasks = append(t.tasks, k)
	t.open[id] = k
	return k, true
}

// vertex returns the task of ev's vertex.
func (t *tracker) vertex(ev event.Event) (*task, bool) {
	title := ev.Name
	if title == "" {
		title = ev.ID
	}
	where := ev.Platform
	if ev.Steps > 0 {
		if where != "" {
			where += " "
		}
		where += fmt.Sprintf("%d/%d", ev.Step, ev.Steps)
	}
	if where != "" {
		title = "[" + where + "] " + title
	}
	title = strings.ReplaceAll(strings.TrimSpace(title), "\n", `\n`) // a script of several lines is one line of progress
	return t.start(ev.ID, title, ev.Source)
}

// end records how a vertex ended.
func (t *tracker) end(k *task, ev event.Event) {
	k.ended = t.now()
	switch {
	case ev.Canceled:
		k.state = canceled
	case ev.Error != "":
		k.state, k.err = failed, ev.Error
	case ev.Cached:
		k.state = cached
	default:
		k.state = finished
	}
	delete(t.open, ev.ID)
}

// transfer updates the task of a transfer and reports whether this was its end.
func (t *tracker) transfer(ev event.Event) (k *task, ended bool) {
	id := ev.ID + " " + ev.Item
	k, _ = t.start(id, ev.Item, "")
	k.status = bytesText(ev.Current)
	if ev.Total > 0 {
		k.status += " / " + bytesText(ev.Total)
	}
	if ev.Total > 0 && ev.Current >= ev.Total {
		k.state, k.ended = finished, t.now()
		delete(t.open, id)
		return k, true
	}
	return k, false
}

// ending is a task's last line without its number.
func (k *task) ending() string {
	switch k.state {
	case cached:
		return "CACHED"
	case failed:
		return "ERROR: " + k.err
	case canceled:
		return "CANCELED"
	case running, finished:
	}
	return "DONE " + seconds(k.ended.Sub(k.began))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// printFailures shows the end of the output of what failed, for displays that did not show all of it.
func (t *tracker) printFailures(w io.Writer) {
	for _, k := range t.tasks {
		if k.state != failed || len(k.tail.lines) == 0 {
			continue
		}
		where := ""
		if k.source != "" {
			where = " (" + k.source + ")"
		}
		fmt.Fprintf(w, "------\n > %s%s:\n", escape(k.title), escape(where))
		if k.tail.dropped {
			fmt.Fprintln(w, "...")
		}
		for _, line := range k.tail.lines {
			fmt.Fprintln(w, escape(line))
		}
		fmt.Fprintln(w, "------")
	}
}

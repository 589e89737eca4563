package ui

import (
	"fmt"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// state is how far a task is.
type state int

const (
	running state = iota
	finished
	cached
	failed
	canceled
)

// task is a vertex, or a transfer that belongs to none.
type task struct {
	n        int
	title    string // safe to print: "[linux/arm64 2/3] RUN uname -a"
	source   string // safe to print: "rootfs.yaml:12"
	began    time.Time
	ended    time.Time
	state    state
	err      string
	transfer bool
	output   [2]lines
	tail     tail
	moves    []*move // bytes under way, in the order they began
}

// move is bytes that a task moves.
type move struct {
	item           string // safe to print
	current, total int64  // total 0: unknown
	began, shown   time.Time
}

func (m *move) over() bool { return m.total > 0 && m.current >= m.total }

func (m *move) amount() string {
	if m.total > 0 {
		return bytesText(m.current) + " / " + bytesText(m.total)
	}
	return bytesText(m.current)
}

// tracker keeps the tasks of a display.
type tracker struct {
	tailLimit int
	tasks     []*task // that are open, and those that failed with output
	open      map[string]*task
	count     int // tasks so far: the number of the last
	steps     int // of these, the vertices
	ended     int // vertices that are over
}

func newTracker(o Options) tracker {
	return tracker{tailLimit: o.Tail, open: map[string]*task{}}
}

// start returns the open task of that id, made when there is none.
func (t *tracker) start(id string, at time.Time, e event.Event) (_ *task, isNew bool) {
	if k, ok := t.open[id]; ok {
		return k, false
	}
	t.count++
	k := &task{n: t.count, title: title(e), source: escape(e.Source), began: at, transfer: e.Kind == event.Progress}
	if !k.transfer {
		t.steps++
	}
	t.tasks = append(t.tasks, k)
	t.open[id] = k
	return k, true
}

// title is "[NODE PLATFORM STEP/STEPS] NAME". A frontend's names begin with such a bracket: the node goes into it.
func title(e event.Event) string {
	name := e.Name
	if name == "" {
		name = e.ID
	}
	where := e.Platform
	if e.Steps > 0 {
		where = strings.TrimSpace(fmt.Sprintf("%s %d/%d", where, e.Step, e.Steps))
	}
	if rest, ok := strings.CutPrefix(name, "["); ok && where == "" && e.Node != "" {
		return escape(strings.TrimSpace("[" + e.Node + " " + rest))
	}
	where = strings.TrimSpace(e.Node + " " + where)
	if where != "" {
		name = "[" + where + "] " + strings.TrimSpace(name)
	}
	return escape(strings.TrimSpace(name))
}

// log takes output of a step and gives its lines to fn.
func (t *tracker) log(k *task, at time.Time, e event.Event, fn func(logLine)) {
	i := 0
	if e.Stream == 2 {
		i = 1
	}
	k.output[i].write(e.Data, t.line(k, at, fn))
}

func (t *tracker) line(k *task, at time.Time, fn func(logLine)) func(string) {
	return func(text string) {
		l := logLine{max(at.Sub(k.began), 0), text}
		k.tail.add(l, t.tailLimit)
		if fn != nil {
			fn(l)
		}
	}
}

// end records how a vertex ended, and gives lines of output that have no end to fn.
func (t *tracker) end(k *task, at time.Time, e event.Event, fn func(logLine)) {
	for i := range k.output {
		k.output[i].flush(t.line(k, at, fn))
	}
	k.ended, k.moves = at, nil
	switch {
	case e.Canceled:
		k.state = canceled
	case e.Error != "":
		k.state, k.err = failed, e.Error
	case e.Cached:
		k.state = cached
	default:
		k.state = finished
	}
	t.closeTask(e.ID, k)
}

// closeTask forgets a task that is over, unless it is needed for the end.
func (t *tracker) closeTask(id string, k *task) {
	if !k.transfer {
		t.ended++
	}
	delete(t.open, id)
	if k.state == failed && len(k.tail.lines) > 0 {
		return
	}
	for i, other := range t.tasks {
		if other == k {
			t.tasks = append(t.tasks[:i], t.tasks[i+1:]...)
			break
		}
	}
}

// progress takes bytes that moved: as part of the vertex that has the event's ID, else as a task of its own.
func (t *tracker) progress(at time.Time, e event.Event) (k *task, m *move) {
	k, ok := t.open[e.ID]
	id := e.ID
	if !ok {
		id = "transfer " + e.ID + " " + e.Item
		k, _ = t.start(id, at, event.Event{Kind: event.Progress, Name: e.Item})
	}
	item := escape(e.Item)
	for _, known := range k.moves {
		if known.item == item {
			m = known
		}
	}
	if m == nil {
		m = &move{item: item, began: at, shown: at}
		k.moves = append(k.moves, m)
	}
	m.current, m.total = max(e.Current, 0), max(e.Total, 0)
	if !m.over() {
		return k, m
	}
	for i, known := range k.moves {
		if known == m {
			k.moves = append(k.moves[:i], k.moves[i+1:]...)
			break
		}
	}
	if k.transfer {
		k.state, k.ended = finished, at
		t.closeTask(id, k)
	}
	return k, m
}

// failures is the end of the output of what failed, as blocks of lines.
func (t *tracker) failures(clean func(string) string) string {
	var b strings.Builder
	for _, k := range t.tasks {
		if k.state != failed || len(k.tail.lines) == 0 {
			continue
		}
		where := ""
		if k.source != "" {
			where = " (" + k.source + ")"
		}
		fmt.Fprintf(&b, "------\n > %s%s:\n", k.title, where)
		if k.tail.dropped {
			b.WriteString("...\n")
		}
		for _, l := range k.tail.lines {
			fmt.Fprintf(&b, "%.3f %s\n", l.after.Seconds(), clean(l.text))
		}
		b.WriteString("------\n")
	}
	return b.String()
}

// warning is a warning's line.
func warning(e event.Event) string {
	if e.Source != "" {
		return "WARNING: " + escape(e.Source) + ": " + escape(e.Text)
	}
	return "WARNING: " + escape(e.Text)
}

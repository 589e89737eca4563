package ui

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// tty redraws what is under way at the bottom of a terminal and leaves what has ended above it, so that
// all of a build can be read by scrolling back.
type tty struct {
	w     io.Writer
	o     Options
	began time.Time
	above []string // lines that go above the redrawn ones with the next drawing
	drawn []int    // widths of the lines that will be drawn over
	tracker
}

func newTTY(w io.Writer, o Options) *tty {
	return &tty{w: w, o: o, began: o.Now(), tracker: newTracker(o)}
}

func (t *tty) event(at time.Time, e event.Event) {
	switch e.Kind {
	case event.Warning:
		t.above = append(t.above, t.colour(yellow, warning(e)))
	case event.Progress:
		if k, m := t.progress(at, e); k.transfer && k.state == finished {
			t.above = append(t.above, t.colour(blue, fmt.Sprintf(" => %s %s  %s", k.title, m.amount(), seconds(k.ended.Sub(k.began)))))
		}
	case event.VertexStart, event.Log, event.VertexDone:
		if k := t.keep(at, e); k != nil && k.state != running {
			t.above = append(t.above, t.ending(k)...)
		}
	}
}

// ending is the lines that stay of a task.
func (t *tty) ending(k *task) []string {
	line := func(word string) string {
		return " => " + word + k.title + "  " + seconds(k.ended.Sub(k.began))
	}
	switch k.state {
	case cached:
		return []string{t.colour(blue, " => CACHED "+k.title)}
	case canceled:
		return []string{t.colour(yellow, line("CANCELED "))}
	case failed:
		out := []string{t.colour(red, line("ERROR "))}
		for l := range strings.SplitSeq(strings.TrimRight(k.err, "\n"), "\n") {
			out = append(out, t.colour(red, " => => "+escape(l)))
		}
		return out
	case running, finished:
	}
	return []string{t.colour(blue, line(""))}
}

// The colours, as BuildKit's users know them.
const (
	red    = "31"
	yellow = "33"
	blue   = "34"
	dim    = "2"
)

func (t *tty) colour(code, s string) string {
	if t.o.NoColor {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *tty) flush()             {}
func (t *tty) tick(now time.Time) { t.draw(now, false) }

// clear takes the block away; the next drawing is below what is written then.
func (t *tty) clear() {
	var b bytes.Buffer
	t.over(&b)
	b.WriteString("\x1b[J")
	t.drawn = t.drawn[:0]
	_, _ = t.w.Write(b.Bytes()) // writer knows no errors
}

// over goes up to where the block begins, and writes the lines that stay.
func (t *tty) over(b *bytes.Buffer) {
	columns := t.o.columns()
	if columns <= 0 {
		columns = 80
	}
	if up := t.height(columns); up > 0 {
		fmt.Fprintf(b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	for _, line := range t.above { // whole: they are not drawn over, so they may wrap
		b.WriteString(line + "\x1b[K\n")
	}
	t.above = t.above[:0]
}

// close draws the end: what has ended, and the output of what failed.
func (t *tty) close(now time.Time) {
	t.draw(now, true)
	_, _ = io.WriteString(t.w, t.failures(screenText)) // writer knows no errors
}

// draw writes the lines that are final, and below them what is under way.
func (t *tty) draw(now time.Time, final bool) {
	columns, rows := t.o.Size()
	if columns <= 0 {
		columns, rows = 80, 24
	}
	var b bytes.Buffer
	t.over(&b)
	block := []string{t.headline(now)}
	switch {
	case final && t.steps == 0: // whoever moved something says what
		block = nil
	case final:
		block[0] += t.verdict()
	default:
		block = append(block, t.underWay(now, columns-1, max(rows-2, 1))...)
	}
	t.drawn = t.drawn[:0]
	for i, line := range block {
		line = fit(line, columns-1)
		t.drawn = append(t.drawn, width(line))
		if i > 0 && strings.HasPrefix(line, logPrefix) {
			line = t.colour(dim, line)
		}
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, _ = t.w.Write(b.Bytes()) // writer knows no errors
}

// headline is the first line of the block.
func (t *tty) headline(now time.Time) string {
	line := fmt.Sprintf("[+] %s %s", t.o.Title, seconds(now.Sub(t.began)))
	if t.steps > 0 {
		line += fmt.Sprintf(" (%d/%d)", t.ended, t.steps)
	}
	return line
}

// verdict ends the last headline.
func (t *tty) verdict() string {
	for _, k := range t.tasks {
		if k.state == failed {
			return " FAILED"
		}
	}
	if t.ended == t.steps {
		return " FINISHED"
	}
	return ""
}

// height is the number of rows that were drawn. When the terminal has become narrower, lines have wrapped.
func (t *tty) height(columns int) (n int) {
	for _, w := range t.drawn {
		n += max(1, (w+columns-1)/columns)
	}
	return n
}

const (
	logPrefix = " => => "
	logLines  = 6 // of one step
)

// underWay is a line for each open task, and as far as there is room, its transfers and its last lines of output.
func (t *tty) underWay(now time.Time, columns, room int) []string {
	var open []*task
	for _, k := range t.tasks {
		if k.state == running {
			open = append(open, k)
		}
	}
	hidden := 0
	if len(open) > room {
		room-- // for the line that counts the hidden ones
		hidden = len(open) - room
		open = open[:room]
	}
	extra := t.share(open, room-len(open))
	var out []string
	for i, k := range open {
		out = append(out, t.head(k, now, columns))
		details := t.details(k, now, columns)
		out = append(out, details[len(details)-extra[i]:]...)
	}
	if hidden > 0 {
		out = append(out, fmt.Sprintf(" => %d more", hidden))
	}
	return out
}

// share gives each task rows for its details, one after the other until there are no more.
func (t *tty) share(open []*task, room int) []int {
	got := make([]int, len(open))
	for given := true; given && room > 0; {
		given = false
		for i, k := range open {
			if room > 0 && got[i] < k.rows() {
				got[i]++
				room--
				given = true
			}
		}
	}
	return got
}

// rows is how many details k has.
func (k *task) rows() int {
	if k.transfer {
		return 0
	}
	return min(len(k.tail.lines), logLines) + len(k.moves)
}

// details is k's transfers and last lines.
func (t *tty) details(k *task, now time.Time, columns int) []string {
	if k.transfer {
		return nil
	}
	var out []string
	for _, m := range k.moves {
		out = append(out, bar(logPrefix+m.item, m, now, columns))
	}
	for _, l := range k.tail.lines[max(0, len(k.tail.lines)-logLines):] {
		out = append(out, logPrefix+screenText(l.text))
	}
	return out
}

// head is the line of an open task, with its time at the right.
func (t *tty) head(k *task, now time.Time, columns int) string {
	left := " => " + k.title
	if k.transfer && len(k.moves) > 0 {
		return bar(left, k.moves[0], now, columns)
	}
	return justify(left, seconds(now.Sub(k.began)), columns)
}

// justify puts right at the end of the line.
func justify(left, right string, columns int) string {
	room := columns - len(right) - 1
	if room < 8 {
		return fit(left, columns)
	}
	left = fit(left, room)
	return left + strings.Repeat(" ", max(room-width(left), 0)+1) + right
}

// barWidth is the columns between the brackets of a bar.
const barWidth = 20

// bar is a transfer: a bar when its size is known and the terminal is wide enough, the amount, the time.
func bar(left string, m *move, now time.Time, columns int) string {
	right := m.amount() + " " + fmt.Sprintf("%6s", seconds(now.Sub(m.began)))
	if m.total > 0 && columns >= 70 {
		full := int(float64(barWidth) * float64(m.current) / float64(m.total))
		full = min(max(full, 0), barWidth)
		right = "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] " + right
	}
	return justify(left, right, columns)
}

package ui

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// screen is a terminal as far as the display needs one: it wraps, scrolls, moves up and erases.
type screen struct {
	mu      sync.Mutex
	t       *testing.T
	columns int
	lines   [][]rune // all that was ever shown, scrolled or not
	row     int
	col     int
	writes  int // one a drawing
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for in := []rune(string(p)); len(in) > 0; {
		r := in[0]
		in = in[1:]
		switch r {
		case '\n': // the line discipline makes it a new line
			s.row, s.col = s.row+1, 0
			s.at()
		case '\r':
			s.col = 0
		case 0x1b:
			require.Equal(s.t, '[', in[0])
			end := strings.IndexAny(string(in[1:]), "AJKm") + 1
			require.Positive(s.t, end)
			arg := string(in[1:end])
			switch in[end] {
			case 'A':
				n, err := strconv.Atoi(arg)
				require.NoError(s.t, err)
				require.LessOrEqual(s.t, n, s.row, "above the first line")
				s.row -= n
			case 'K':
				s.lines[s.row] = s.at()[:s.col]
			case 'J':
				s.lines[s.row] = s.at()[:s.col]
				s.lines = s.lines[:s.row+1]
			}
			in = in[end+1:]
		default:
			require.GreaterOrEqual(s.t, r, ' ', "a control character")
			if s.col == s.columns {
				s.row, s.col = s.row+1, 0
			}
			line := s.at()
			s.lines[s.row] = append(line[:s.col:s.col], r)
			s.col++
		}
	}
	s.writes++
	return len(p), nil
}

func (s *screen) drawings() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// at returns the current line, made when it is new.
func (s *screen) at() []rune {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, nil)
	}
	return s.lines[s.row]
}

// resize makes the terminal narrower: what is wider wraps.
func (s *screen) resize(columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]rune
	for i, l := range s.lines {
		if i == s.row {
			s.row = len(out)
		}
		for len(l) > columns {
			out = append(out, l[:columns])
			l = l[columns:]
		}
		out = append(out, l)
	}
	s.lines, s.columns = out, columns
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(strings.TrimRight(string(l), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// session is a display on a screen, one step at a time.
type session struct {
	*screen
	clock *clock
	ticks chan time.Time
	d     *Display
	rows  int
}

func newSession(t *testing.T, columns, rows int, o Options) *session {
	s := &session{screen: &screen{t: t, columns: columns}, clock: newClock(), ticks: make(chan time.Time), rows: rows}
	o.Now, o.Ticks, o.Term = s.clock.now, s.ticks, "xterm"
	o.Size = func() (int, int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.columns, s.rows
	}
	s.d = New(TTY, s.screen, o)
	return s
}

func (s *session) send(at time.Duration, events ...event.Event) {
	s.clock.to(at)
	for _, e := range events {
		s.d.Sink()(e)
	}
}

// look draws at a time and returns the screen.
func (s *session) look(at time.Duration) string {
	s.clock.to(at)
	for { // what was sent is taken before the tick
		s.d.queueing.Lock()
		n := len(s.d.queue)
		s.d.queueing.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for range 2 { // the first may come while events are still shown
		before := s.drawings()
		s.ticks <- time.Time{}
		for s.drawings() == before {
			time.Sleep(time.Millisecond)
		}
	}
	return s.String()
}

func TestTTY(t *testing.T) {
	s := newSession(t, 100, 24, Options{})
	var out strings.Builder
	events := aBuild()
	for _, at := range []time.Duration{25 * ms, 100 * ms, 1200 * ms, 7250 * ms} {
		for len(events) > 0 && events[0].after <= at {
			s.send(events[0].after, events[0].e)
			events = events[1:]
		}
		fmt.Fprintf(&out, "=== %s\n%s", at, s.look(at))
	}
	for _, ev := range events {
		s.send(ev.after, ev.e)
	}
	s.d.Close()
	fmt.Fprintf(&out, "=== end\n%s", s.String())
	golden(t, "tty", out.String())
}

func TestTTYNarrow(t *testing.T) {
	s := newSession(t, 40, 10, Options{NoColor: true})
	for _, ev := range aBuild()[:14] {
		s.send(ev.after, ev.e)
	}
	shown := s.look(7250 * ms)
	block := shown[strings.LastIndex(shown, "[+]"):]
	assert.LessOrEqual(t, strings.Count(block, "\n"), 9)
	for line := range strings.SplitSeq(block, "\n") {
		assert.LessOrEqual(t, len(line), 39)
	}
	s.d.Close()
	assert.Equal(t, 1, strings.Count(s.String(), "[+]"), "the block was drawn over")
}

func TestTTYResize(t *testing.T) {
	s := newSession(t, 120, 20, Options{NoColor: true})
	for _, ev := range aBuild()[:14] {
		s.send(ev.after, ev.e)
	}
	s.look(7250 * ms)
	s.resize(50)
	s.look(7260 * ms)
	s.resize(30)
	shown := s.look(7270 * ms)
	assert.Equal(t, 1, strings.Count(shown, "[+]"), shown)
	s.resize(100)
	shown = s.look(7280 * ms)
	assert.Equal(t, 1, strings.Count(shown, "[+]"), shown)
	s.d.Close()
}

// TestTTYRoom holds the block to the terminal's height, whatever runs.
func TestTTYRoom(t *testing.T) {
	for _, rows := range []int{1, 2, 3, 5, 12, 60} {
		s := newSession(t, 80, rows, Options{NoColor: true})
		for i := range 30 {
			id := fmt.Sprint(i)
			s.send(0, event.Event{Kind: event.VertexStart, ID: id, Name: "RUN " + id})
			for j := range 10 {
				s.send(0, event.Event{Kind: event.Log, ID: id, Data: fmt.Appendf(nil, "line %d\n", j)})
			}
		}
		shown := s.look(time.Second)
		assert.LessOrEqual(t, strings.Count(shown, "\n"), max(rows-1, 2), "%d rows:\n%s", rows, shown)
		assert.Contains(t, shown, "(0/30)")
		if rows > 3 && rows < 30 {
			assert.Contains(t, shown, " more\n")
		}
		s.d.Close()
	}
}

func TestTTYWideText(t *testing.T) {
	s := newSession(t, 20, 10, Options{NoColor: true})
	s.send(0, event.Event{Kind: event.VertexStart, ID: "a", Name: "RUN 日本語日本語日本語日本語"})
	shown := s.look(0)
	for line := range strings.SplitSeq(shown, "\n") {
		assert.LessOrEqual(t, width(line), 19)
	}
	s.d.Close()
}

func TestTTYColours(t *testing.T) {
	var out, without bytes.Buffer
	size := func() (int, int) { return 80, 24 }
	for w, o := range map[*bytes.Buffer]Options{&out: {Size: size, Term: "xterm"}, &without: {Size: size, Term: "xterm", NoColor: true}} {
		d := New(TTY, w, o)
		d.Sink()(event.Event{Kind: event.VertexDone, ID: "a", Name: "RUN", Error: "no"})
		d.Close()
	}
	assert.Contains(t, out.String(), "\x1b[31m => ERROR RUN")
	assert.NotContains(t, without.String(), "\x1b[31m")
	assert.Contains(t, without.String(), " => ERROR RUN")
}

func TestScreenText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                               "plain",
		"10%\r50%\r100%":                      "100%",
		"done\r":                              "done",
		"\x1b[1;31mred\x1b[0m":                "red",
		"a\x1b]0;title\x07b":                  "ab",
		"a\x1b]8;;http://x\x1b\\link":         "alink",
		"a\x1b(Bb\x1b=c":                      "abc",
		"a\tb":                                "a    b",
		"bell\a back\b\b":                     "bell back",
		"\xff\xfe":                            "\uFFFD\uFFFD",
		"\u202eevil":                          "evil",
		"\u009b2Jx":                           "2Jx",
		"unfinished \x1b[":                    "unfinished ",
		"unfinished \x1b":                     "unfinished ",
		"unfinished \x1b]0;":                  "unfinished ",
		"sequence with a control \x1b[1\x01x": "sequence with a control x",
		"日本語":                                 "日本語",
	} {
		assert.Equal(t, want, screenText(in), "%q", in)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1.00kB", 999_994: "999.99kB", 999_996: "1.00MB", 1_234_567: "1.23MB", 5_000_000_000: "5.00GB", 1 << 62: "4611.69PB",
	} {
		assert.Equal(t, want, bytesText(n))
	}
}

func FuzzScreenText(f *testing.F) {
	for _, s := range []string{"\x1b[31mx", "\x1b]0;t\a", "a\rb", "\xff", "\x1b(B", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, clean := range []string{screenText(strings.ReplaceAll(s, "\n", " ")), escape(s)} {
			for _, r := range clean {
				require.False(t, r != '\uFFFD' && unsafeRune(r), "%q", clean)
			}
		}
		require.LessOrEqual(t, width(fit(s, 20)), 20)
	})
}

// TestTTYResult holds a result on the terminal on which progress is drawn: nothing is drawn over it.
func TestTTYResult(t *testing.T) {
	s := newSession(t, 60, 20, Options{NoColor: true, Title: "Transferring"})
	move := func(at time.Duration, item string, current int64) {
		s.send(at, event.Event{Kind: event.Progress, ID: item, Item: item, Current: current, Total: 1000})
	}
	move(0, "pushing sha256:aaaa", 10)
	move(0, "pushing sha256:bbbb", 10)
	require.Contains(t, s.look(100*ms), "[+] Transferring 0.1s\n => pushing")
	out := s.d.Writer(s.screen)
	n, err := io.WriteString(out, "sha256:first\n")
	require.NoError(t, err)
	assert.Equal(t, 13, n)
	assert.Contains(t, s.look(200*ms), "sha256:first\n[+] Transferring 0.2s\n => pushing", "what is under way is below the result")
	move(300*ms, "pushing sha256:aaaa", 1000)
	move(300*ms, "pushing sha256:bbbb", 1000)
	s.look(300 * ms)
	_, err = io.WriteString(out, "sha256:second\n")
	require.NoError(t, err)
	s.d.Close()
	_, err = io.WriteString(out, "sha256:third\n")
	require.NoError(t, err)
	shown := s.String()
	assert.Contains(t, shown, "sha256:first\n => pushing", "what ended stays")
	assert.True(t, strings.HasSuffix(shown, "sha256:second\nsha256:third\n"), shown)
	assert.NotContains(t, shown, "[+]", "no headline is left that counts no steps")
}

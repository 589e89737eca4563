package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "go test -update writes it")
	assert.Equal(t, string(want), got)
}

// clock stands still until it is set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// to sets the clock to a time after the start.
func (c *clock) to(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Unix(1700000000, 0).Add(d)
}

func newClock() *clock {
	c := &clock{}
	c.to(0)
	return c
}

// timed is an event and when it comes.
type timed struct {
	after time.Duration
	e     event.Event
}

const ms = time.Millisecond

// aBuild is the events of a build: a step is cached, one prints, one fails, one is canceled, bytes move.
func aBuild() []timed {
	step := func(id, platform, name string, n, of int, line int) event.Event {
		return event.Event{ID: id, Platform: platform, Name: name, Step: n, Steps: of, Source: fmt.Sprintf("rootfs.yaml:%d", line)}
	}
	start := func(e event.Event) event.Event { e.Kind = event.VertexStart; return e }
	done := func(e event.Event) event.Event { e.Kind = event.VertexDone; return e }
	log := func(id string, stream int, text string) event.Event {
		return event.Event{Kind: event.Log, ID: id, Stream: stream, Data: []byte(text)}
	}
	move := func(id, item string, current, total int64) event.Event {
		return event.Event{Kind: event.Progress, ID: id, Item: item, Current: current, Total: total}
	}
	files := step("a", "linux/amd64", "FILES /etc/motd", 1, 3, 5)
	run := step("b", "linux/arm64", "RUN uname -a\nfalse\n", 2, 3, 9)
	long := step("c", "linux/riscv64", "RUN make -j all && make install DESTDIR=/somewhere/that/is/rather/long", 3, 3, 12)
	export := event.Event{ID: "exporting to oci out.tar", Name: "exporting to oci out.tar"}
	cachedFiles, failedRun, canceledLong, failedExport := files, run, long, export
	cachedFiles.Cached = true
	failedRun.Error = "exit code 1"
	canceledLong.Error, canceledLong.Canceled = "stopped", true
	failedExport.Error = "out.tar: no space left on device\nneed 2 GB more"
	return []timed{
		{0, start(files)},
		{10 * ms, done(cachedFiles)},
		{20 * ms, start(run)},
		{30 * ms, move("sha256:1", "pulling sha256:111111111111", 0, 2_000_000)},
		{40 * ms, log("b", 1, "Linux a")},
		{50 * ms, log("b", 2, "to stderr\n")},
		{60 * ms, log("b", 1, "arch64\r\nno end")},
		{70 * ms, event.Event{Kind: event.Warning, Text: "slow registry", Source: "rootfs.yaml:3"}},
		{1000 * ms, start(long)},
		{1000 * ms, move("sha256:1", "pulling sha256:111111111111", 500_000, 2_000_000)},
		{1500 * ms, move("sha256:1", "pulling sha256:111111111111", 2_000_000, 2_000_000)},
		{2000 * ms, start(export)},
		{2100 * ms, move(export.ID, "writing out.tar", 10_000_000, 40_000_000)},
		{7200 * ms, move(export.ID, "writing out.tar", 30_000_000, 40_000_000)},
		{7300 * ms, done(failedExport)},
		{7400 * ms, done(failedRun)},
		{7500 * ms, done(canceledLong)},
	}
}

// play shows events in their time and returns what was written.
func play(t *testing.T, mode Mode, o Options, events []timed) string {
	t.Helper()
	var out bytes.Buffer
	c := newClock()
	o.Now = c.now
	d := New(mode, &out, o)
	for _, ev := range events {
		c.to(ev.after)
		d.Sink()(ev.e)
	}
	d.Close()
	return out.String()
}

func TestPlain(t *testing.T) { golden(t, "plain", play(t, Plain, Options{}, aBuild())) }

func TestQuiet(t *testing.T) { golden(t, "quiet", play(t, Quiet, Options{}, aBuild())) }

func TestRawJSON(t *testing.T) {
	out := play(t, RawJSON, Options{}, aBuild())
	golden(t, "rawjson", out)
	dec := json.NewDecoder(strings.NewReader(out))
	for _, want := range aBuild() {
		var got Record
		require.NoError(t, dec.Decode(&got))
		assert.Equal(t, want.e, got.Event)
		assert.Equal(t, time.Unix(1700000000, 0).Add(want.after).UTC(), got.Time)
	}
	require.ErrorIs(t, dec.Decode(&Record{}), io.EOF)
}

func TestParseMode(t *testing.T) {
	for in, want := range map[string]Mode{"": Auto, "auto": Auto, "plain": Plain, "tty": TTY, "quiet": Quiet, "none": Quiet, "rawjson": RawJSON} {
		got, err := ParseMode(in)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := ParseMode("fancy")
	require.ErrorIs(t, err, ErrMode)
}

func TestNewChooses(t *testing.T) {
	terminal := func() (int, int) { return 80, 24 }
	for name, tc := range map[string]struct {
		mode Mode
		o    Options
		want renderer
	}{
		"auto on a terminal":     {Auto, Options{Size: terminal, Term: "xterm"}, &tty{}},
		"auto elsewhere":         {Auto, Options{Term: "xterm"}, &plain{}},
		"auto, dumb":             {Auto, Options{Size: terminal, Term: "dumb"}, &plain{}},
		"auto, unknown terminal": {Auto, Options{Size: terminal}, &plain{}},
		"tty":                    {TTY, Options{Size: terminal, Term: "xterm"}, &tty{}},
		"tty, but none":          {TTY, Options{Size: func() (int, int) { return 0, 0 }, Term: "xterm"}, &plain{}},
		"tty, dumb":              {TTY, Options{Size: terminal, Term: "dumb"}, &plain{}},
		"plain on a terminal":    {Plain, Options{Size: terminal, Term: "xterm"}, &plain{}},
		"quiet":                  {Quiet, Options{Size: terminal, Term: "xterm"}, &quiet{}},
		"rawjson":                {RawJSON, Options{Size: terminal, Term: "xterm"}, &raw{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(tc.mode, io.Discard, tc.o)
			defer d.Close()
			assert.IsType(t, tc.want, d.out)
		})
	}
}

// TestSink holds a sink to its contract: it never waits, and a display that falls behind says what it left out.
func TestSink(t *testing.T) {
	t.Run("never waits", func(t *testing.T) {
		r, w := io.Pipe() // nobody reads
		d := New(Plain, w, Options{Limit: 1 << 20})
		chunk := []byte(strings.Repeat("x", 99) + "\n")
		for range 100_000 { // ten times the limit
			d.Sink()(event.Event{Kind: event.Log, ID: "a", Data: chunk})
		}
		d.queueing.Lock()
		assert.LessOrEqual(t, d.waiting, 1<<20)
		d.queueing.Unlock()
		var out bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = out.ReadFrom(r) // until the pipe is closed
		}()
		d.Close()
		require.NoError(t, w.Close())
		<-read
		assert.Contains(t, out.String(), "of output were dropped")
	})
	t.Run("concurrent, and after the end", func(t *testing.T) {
		var out bytes.Buffer
		d := New(Plain, &out, Options{})
		var g sync.WaitGroup
		for i := range 20 {
			g.Go(func() {
				data := []byte("line\n")
				for range 50 {
					d.Sink()(event.Event{Kind: event.Log, ID: fmt.Sprint(i), Data: data})
				}
				data[0] = 'X' // the buffer is the emitter's again
			})
		}
		g.Wait()
		d.Close()
		d.Close()
		d.Sink()(event.Event{Kind: event.Warning, Text: "too late"})
		assert.Equal(t, 1000, strings.Count(out.String(), " line\n"))
		assert.NotContains(t, out.String(), "late")
	})
	t.Run("a broken pipe ends nothing", func(t *testing.T) {
		d := New(Plain, brokenWriter{}, Options{})
		d.Sink()(event.Event{Kind: event.VertexStart, ID: "a"})
		d.Close()
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestE04_OutputWithoutEnd: neither a line without an end nor lines without end cost memory.
func TestE04_OutputWithoutEnd(t *testing.T) {
	for _, mode := range []Mode{Quiet, Plain} {
		d := New(mode, io.Discard, Options{})
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for range 500 {
			d.Sink()(event.Event{Kind: event.Log, ID: "a", Data: chunk})
		}
		d.Sink()(event.Event{Kind: event.VertexDone, ID: "a", Error: "killed"})
		d.Close()
		var k *task
		switch r := d.out.(type) {
		case *quiet:
			k = r.tasks[0]
		case *plain:
			k = r.tasks[0]
		}
		require.NotNil(t, k)
		assert.LessOrEqual(t, len(k.tail.lines), defaultTail)
		for _, l := range k.tail.lines {
			assert.LessOrEqual(t, len(l.text), maxLine)
		}
	}
}

// TestB17_HostileText: names, errors and warnings never reach a terminal raw, the output of steps only a file.
func TestB17_HostileText(t *testing.T) {
	hostile := "\x1b]0;title\a \x1b]52;c;eA==\a \u202egnp\u202c \u009b2J"
	events := []timed{
		{0, event.Event{Kind: event.VertexStart, ID: "a", Name: "RUN " + hostile, Platform: hostile, Source: hostile}},
		{0, event.Event{Kind: event.Log, ID: "a", Data: []byte("10%\r\x1b[31m100%\x1b[0m done\x1b[2J\b\b" + hostile + "\n")}},
		{0, event.Event{Kind: event.Progress, ID: "x", Item: hostile, Current: 1, Total: 1}},
		{0, event.Event{Kind: event.Warning, Text: hostile, Source: hostile}},
		{0, event.Event{Kind: event.VertexDone, ID: "a", Error: hostile}},
	}
	terminal := Options{Size: func() (int, int) { return 200, 24 }, Term: "xterm", NoColor: true}
	for _, mode := range []Mode{Plain, Quiet, TTY} {
		out := play(t, mode, terminal, events)
		out = strings.NewReplacer("\x1b[K", "", "\x1b[J", "", "\x1b[1A", "", "\x1b[2A", "").Replace(out)
		assert.NotContains(t, out, "\x1b", mode)
		for _, bad := range []string{"\a", "\b", "\u202e", "\u009b"} {
			assert.NotContains(t, out, bad, mode)
		}
		assert.Contains(t, out, "100% done", mode)
	}
	file := play(t, Plain, Options{}, events)
	assert.Contains(t, file, "10%\r\x1b[31m100%", "a file gets what the step printed")
	assert.NotContains(t, strings.Split(file, "\n")[0], "\x1b", "but names are ours")
}

func TestPlainErrorWithoutOutput(t *testing.T) {
	out := play(t, Plain, Options{}, []timed{
		{0, event.Event{Kind: event.VertexDone, ID: "a", Name: "COPY", Error: "no such file\n"}},
		{0, event.Event{Kind: event.VertexStart, ID: "a", Name: "COPY again"}},
		{ms, event.Event{Kind: event.VertexDone, ID: "a"}},
	})
	assert.Equal(t, "#1 COPY\n#1 ERROR: no such file\n#2 COPY again\n#2 DONE 0.0s\n", out)
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// clock is a clock that goes on by a second with every look at it.
func clock() func() time.Time {
	t := time.Unix(0, 0)
	return func() time.Time {
		t = t.Add(time.Second)
		return t
	}
}

// aBuild is the events of a build: one step is cached, one prints, one fails, one is canceled.
var aBuild = []event.Event{
	{Kind: event.VertexStart, ID: "a", Platform: "linux/amd64", Name: "FILES /etc/motd", Step: 1, Steps: 2, Source: "rootfs.yaml:5"},
	{Kind: event.VertexDone, ID: "a", Platform: "linux/amd64", Name: "FILES /etc/motd", Step: 1, Steps: 2, Cached: true},
	{Kind: event.VertexStart, ID: "b", Platform: "linux/arm64", Name: "RUN uname -a\nfalse\n", Step: 2, Steps: 2, Source: "rootfs.yaml:9"},
	{Kind: event.Log, ID: "b", Stream: 1, Data: []byte("Linux a")},
	{Kind: event.Log, ID: "b", Stream: 2, Data: []byte("to stderr\n")},
	{Kind: event.Log, ID: "b", Stream: 1, Data: []byte("arch64\r\nno end")},
	{Kind: event.Warning, Text: "slow registry", Source: "rootfs.yaml:3"},
	{Kind: event.Progress, ID: "sha256:1", Item: "pulling sha256:1", Total: 2000},
	{Kind: event.VertexStart, ID: "c", Name: "exporting to oci"},
	{Kind: event.Progress, ID: "sha256:1", Item: "pulling sha256:1", Current: 2000, Total: 2000},
	{Kind: event.VertexDone, ID: "b", Platform: "linux/arm64", Name: "RUN uname -a", Step: 2, Steps: 2, Error: "exit code 1"},
	{Kind: event.VertexDone, ID: "c", Name: "exporting to oci", Error: "stopped", Canceled: true},
}

func play(d display, events []event.Event) {
	for _, ev := range events {
		d.show(ev)
	}
	d.close()
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	play(newPlainDisplay(&out, clock(), false), aBuild)
	assert.Equal(t, `#1 [linux/amd64 1/2] FILES /etc/motd
#1 CACHED
#2 [linux/arm64 2/2] RUN uname -a\nfalse
#2 1.000 to stderr
#2 2.000 Linux aarch64
WARNING: rootfs.yaml:3: slow registry
#4 exporting to oci
#3 pulling sha256:1 2.0 kB / 2.0 kB 2.0s done
#2 6.000 no end
#2 ERROR: exit code 1
#4 CANCELED
`, out.String())
}

func TestPlainEscapesForTerminals(t *testing.T) {
	hostile := []event.Event{
		{Kind: event.VertexStart, ID: "a", Name: "RUN \x1b]0;title\a"},
		{Kind: event.Log, ID: "a", Stream: 1, Data: []byte("10%\r100% \x1b[31mred\x1b[2J\n")},
	}
	var terminal, file bytes.Buffer
	play(newPlainDisplay(&terminal, clock(), true), hostile)
	assert.NotContains(t, terminal.String(), "\x1b")
	assert.Contains(t, terminal.String(), " 100% \\u001b[31mred")
	play(newPlainDisplay(&file, clock(), false), hostile)
	assert.Contains(t, file.String(), "10%\r100% \x1b[31mred", "a file gets what the step printed")
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	play(newQuietDisplay(&out, clock()), aBuild)
	assert.Equal(t, `WARNING: rootfs.yaml:3: slow registry
------
 > [linux/arm64 2/2] RUN uname -a\nfalse (rootfs.yaml:9):
to stderr
Linux aarch64
no end
------
`, out.String())
}

func TestRawJSON(t *testing.T) {
	var out bytes.Buffer
	e := testEnv(nil)
	e.stderr, e.now, e.size = &out, clock(), func() (int, int) { return 0, 0 }
	sink, closeDisplay, err := e.progress("rawjson")
	require.NoError(t, err)
	for _, ev := range aBuild {
		sink(ev)
	}
	closeDisplay()
	var got []event.Event
	for dec := json.NewDecoder(&out); ; {
		var ev event.Event
		if err := dec.Decode(&ev); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			require.NoError(t, err)
		}
		got = append(got, ev)
	}
	assert.Equal(t, aBuild, got)
}

func TestTTY(t *testing.T) {
	var out lockedBuffer
	real := newTTYDisplay(&out, time.Now, func() (int, int) { return 40, 10 })
	for _, ev := range aBuild[:9] {
		real.show(ev)
	}
	real.draw(false)
	shown := out.String()
	assert.Contains(t, shown, " => CACHED [linux/amd64 1/2] FILES /etc/motd")
	assert.Contains(t, shown, " => => Linux aarch64")
	assert.Contains(t, shown, "WARNING: rootfs.yaml:3: slow registry")
	for line := range strings.SplitSeq(shown[strings.LastIndex(shown, "[+]"):], "\n") {
		assert.LessOrEqual(t, len(line), 39, "%q would wrap, and could not be drawn over", line)
	}
	play(real, aBuild[9:])
	end := out.String()
	assert.Contains(t, end, "\x1b[J", "the block is drawn over")
	assert.Contains(t, end, " => ERROR [linux/arm64 2/2] RUN uname -a")
	assert.Contains(t, end, "(4/4)")
	assert.Contains(t, end, "no end\n------\n")
}

// TestTTYRoom holds the redrawn block to the terminal's height, whatever runs.
func TestTTYRoom(t *testing.T) {
	var out lockedBuffer
	d := newTTYDisplay(&out, time.Now, func() (int, int) { return 80, 6 })
	for _, id := range strings.Split("abcdefghij", "") {
		d.show(event.Event{Kind: event.VertexStart, ID: id, Name: "RUN " + id})
		d.show(event.Event{Kind: event.Log, ID: id, Stream: 1, Data: []byte("output\n")})
	}
	d.draw(false)
	d.model.Lock()
	assert.LessOrEqual(t, d.height, 5)
	d.model.Unlock()
	assert.Contains(t, out.String(), " more")
	d.close()
}

func TestProgressMode(t *testing.T) {
	for name, tc := range map[string]struct {
		mode string
		cols int
		term string
		want display
	}{
		"auto in a log":      {mode: "auto", term: "xterm", want: &plainDisplay{}},
		"auto on a terminal": {mode: "auto", term: "xterm", cols: 80, want: &ttyDisplay{}},
		"a dumb terminal":    {mode: "auto", term: "dumb", cols: 80, want: &plainDisplay{}},
		"plain":              {mode: "plain", cols: 80, term: "xterm", want: &plainDisplay{}},
		"quiet":              {mode: "quiet", want: &quietDisplay{}},
		"none, for podman":   {mode: "none", want: &quietDisplay{}},
		"unknown":            {mode: "loud"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEnv(map[string]string{"TERM": tc.term})
			e.stderr, e.now, e.size = io.Discard, time.Now, func() (int, int) { return tc.cols, 24 }
			d, err := e.newDisplay(tc.mode)
			if tc.want == nil {
				require.ErrorIs(t, err, errUsage)
				return
			}
			require.NoError(t, err)
			assert.IsType(t, tc.want, d)
			d.close()
		})
	}
}

// TestE04_OutputWithoutEnd holds displays to bounded memory.
func TestE04_OutputWithoutEnd(t *testing.T) {
	var lines lineBuffer
	var kept tail
	longest, total := 0, 0
	for range 1 << 10 {
		lines.write(bytes.Repeat([]byte("x"), 40<<10), func(line string) {
			longest, total = max(longest, len(line)), total+len(line)
			kept.add(line)
		})
	}
	lines.flush(func(line string) { total += len(line) })
	assert.Equal(t, 40<<20, total, "nothing is lost")
	assert.LessOrEqual(t, longest, maxLine)
	assert.LessOrEqual(t, cap(lines.rest), 4*maxLine)
	assert.LessOrEqual(t, kept.bytes, maxTailBytes)
	assert.True(t, kept.dropped)
}

func TestFit(t *testing.T) {
	assert.Equal(t, "abc", fit("abc", 3))
	assert.Equal(t, "abc", fit("abcd", 3))
	assert.Equal(t, "日", fit("日本", 3))
	assert.Equal(t, "", fit("日", 1))
}

// lockedBuffer is what a display may write to from its own goroutine.
type lockedBuffer struct {
	content sync.Mutex
	b       bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.content.Lock()
	defer l.content.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.content.Lock()
	defer l.content.Unlock()
	return l.b.String()
}

package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/report"
)

// clock is a clock that is set by hand.
type clock struct{ at time.Time }

func (c *clock) now() time.Time                  { return c.at }
func (c *clock) sleep(s float64)                 { c.at = c.at.Add(time.Duration(s * float64(time.Second))) }
func start() *clock                              { return &clock{time.Unix(1_700_000_000, 0)} }
func vertex(k event.Kind, id string) event.Event { return event.Event{Kind: k, ID: id} }

// recordHello records a build of two platforms: 40 s in all, 30 of them a compiler under qemu.
func recordHello() report.Build {
	c := start()
	r := report.NewRecorder(c.now)
	emit := r.Sink()
	emit(event.Event{Kind: event.VertexStart, ID: "shared", Name: "COPY . /src", Source: "Dockerfile:2"})
	c.sleep(1)
	emit(vertex(event.VertexDone, "shared"))
	emit(event.Event{Kind: event.VertexStart, ID: "amd", Name: "RUN go build ./...", Platform: "linux/amd64", Runner: event.RunnerNative, Source: "Dockerfile:3"})
	emit(event.Event{Kind: event.VertexStart, ID: "arm", Name: "RUN go build ./...", Platform: "linux/arm64", Runner: "qemu-aarch64 7.2.22", Source: "Dockerfile:3"})
	emit(event.Event{Kind: event.Log, ID: "arm", Stream: 1, Data: []byte("<script>alert(1)</script>\n")})
	c.sleep(3)
	emit(vertex(event.VertexDone, "amd"))
	emit(event.Event{Kind: event.Progress, ID: "blob", Item: "pushing sha256:abc", Current: 10, Total: 5000})
	c.sleep(1)
	emit(event.Event{Kind: event.Progress, ID: "blob", Item: "pushing sha256:abc", Current: 5000, Total: 5000})
	c.sleep(26)
	emit(vertex(event.VertexDone, "arm"))
	emit(event.Event{Kind: event.VertexStart, ID: "later", Name: "RUN true", Platform: "linux/arm64", Runner: "qemu-aarch64 7.2.22"})
	emit(event.Event{Kind: event.VertexDone, ID: "later", Cached: true})
	c.sleep(9)
	b := r.Build()
	b.Name, b.Digest = "example/hello:1.0", "sha256:feed"
	common := report.Layer{Digest: "sha256:aaaaaaaaaaaaaaaa", Size: 1200, CreatedBy: "COPY . /src"}
	b.Images = []report.Image{
		{Platform: "linux/amd64", Layers: []report.Layer{common, {Digest: "sha256:bbbbbbbbbbbbbbbb", Size: 10}}},
		{Platform: "linux/arm64", Layers: []report.Layer{common, {Digest: "sha256:cccccccccccccccc", Size: 20}}},
	}
	return b
}

func TestRecorder(t *testing.T) {
	b := recordHello()
	classes := map[string]report.Class{}
	took := map[string]time.Duration{}
	for _, s := range b.Steps {
		classes[s.ID], took[s.ID] = s.Class, s.Duration()
	}
	assert.Equal(t, map[string]report.Class{
		"shared": report.Files, "amd": report.Native, "arm": report.Emulated, "blob": report.Transfer, "later": report.Cached,
	}, classes)
	assert.Equal(t, 30*time.Second, took["arm"])
	assert.Equal(t, time.Second, took["blob"])
	assert.Equal(t, 40*time.Second, b.Duration())
}

func TestWhatHasNotEndedEndsWithTheBuild(t *testing.T) {
	c := start()
	r := report.NewRecorder(c.now)
	r.Sink()(event.Event{Kind: event.VertexStart, ID: "a", Name: "RUN sleep"})
	c.sleep(5)
	steps := r.Build().Steps
	require.Len(t, steps, 1)
	assert.True(t, steps[0].Canceled)
	assert.Equal(t, 5*time.Second, steps[0].Duration())
}

func TestOutputIsBoundedAndItsEndIsKept(t *testing.T) {
	c := start()
	r := report.NewRecorder(c.now)
	emit := r.Sink()
	emit(event.Event{Kind: event.VertexStart, ID: "a"})
	for range 1000 {
		emit(event.Event{Kind: event.Log, ID: "a", Data: bytes.Repeat([]byte("x"), 1000)})
	}
	emit(event.Event{Kind: event.Log, ID: "a", Data: []byte("the end\xff")})
	out := r.Build().Steps[0].Output
	assert.LessOrEqual(t, len(out), 9<<10)
	assert.True(t, strings.HasSuffix(out, "the end\uFFFD"))
}

func TestAdvice(t *testing.T) {
	b := recordHello()
	advice := report.Advise(b)
	require.Len(t, advice, 1)
	assert.Equal(t, "arm", advice[0].Step)
	assert.Contains(t, advice[0].Text, "Cross-compile")
	assert.Contains(t, advice[0].Text, "go build")

	for i := range b.Steps { // native, the same time is no reason for advice
		b.Steps[i].Class = report.Native
	}
	assert.Empty(t, report.Advise(b))
}

func TestChromeTrace(t *testing.T) {
	var buf bytes.Buffer
	require.NoError(t, report.WriteChrome(&buf, recordHello()))
	var trace struct {
		TraceEvents []struct {
			Name, Ph string
			Ts, Dur  int64
			Pid, Tid int
			Args     map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(buf.Bytes(), &trace))
	processes := map[int]string{}
	for _, e := range trace.TraceEvents {
		if e.Ph == "M" && e.Name == "process_name" {
			processes[e.Pid] = e.Args["name"].(string)
		}
	}
	assert.Equal(t, map[int]string{1: "shared", 2: "linux/amd64", 3: "linux/arm64"}, processes)
	for _, e := range trace.TraceEvents {
		if e.Ph == "X" && e.Args["vertex"] == "arm" {
			assert.Equal(t, int64(1_000_000), e.Ts)
			assert.Equal(t, int64(30_000_000), e.Dur)
			assert.Equal(t, "linux/arm64", processes[e.Pid])
			return
		}
	}
	t.Fatal("the emulated step is not in the trace")
}

func TestOTLP(t *testing.T) {
	var buf bytes.Buffer
	require.NoError(t, report.WriteOTLP(&buf, recordHello()))
	var req struct {
		ResourceSpans []struct {
			ScopeSpans []struct {
				Spans []struct {
					TraceID           string `json:"traceId"`
					SpanID            string `json:"spanId"`
					ParentSpanID      string `json:"parentSpanId"`
					Name              string
					StartTimeUnixNano string
					EndTimeUnixNano   string
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(buf.Bytes(), &req))
	spans := req.ResourceSpans[0].ScopeSpans[0].Spans
	require.Len(t, spans, 6)
	ids := map[string]bool{}
	for i, s := range spans {
		assert.Regexp(t, regexp.MustCompile(`^[0-9a-f]{32}$`), s.TraceID)
		assert.Regexp(t, regexp.MustCompile(`^[0-9a-f]{16}$`), s.SpanID)
		assert.False(t, ids[s.SpanID], "span ids are unique")
		ids[s.SpanID] = true
		if i > 0 {
			assert.Equal(t, spans[0].SpanID, s.ParentSpanID)
		}
	}
	assert.Equal(t, "1700000000000000000", spans[0].StartTimeUnixNano)
}

func TestPage(t *testing.T) {
	var buf bytes.Buffer
	require.NoError(t, report.WriteHTML(&buf, recordHello()))
	page := buf.String()
	assert.NotContains(t, page, "<script>alert", "what a step prints is text")
	assert.Contains(t, page, "&lt;script&gt;alert(1)")
	assert.Contains(t, page, `<tr class="shared"><td class="mono" title="sha256:aaaaaaaaaaaaaaaa">`)
	assert.NotRegexp(t, `(?i)(src|href)\s*=|@import|url\(`, page, "nothing is loaded from elsewhere")
	assert.Contains(t, page, "Cross-compile")
}

func TestOutputsAreAFunctionOfTheBuild(t *testing.T) {
	for name, write := range map[string]func(io.Writer, report.Build) error{
		"html": report.WriteHTML, "chrome": report.WriteChrome, "otlp": report.WriteOTLP,
	} {
		t.Run(name, func(t *testing.T) {
			var a, b bytes.Buffer
			require.NoError(t, write(&a, recordHello()))
			require.NoError(t, write(&b, recordHello()))
			assert.Equal(t, a.String(), b.String())
			assert.Error(t, write(full{}, recordHello()))
		})
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

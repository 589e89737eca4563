// Package report turns the events of a build into something to look at afterwards: a page for people
// ([WriteHTML]), and spans for trace viewers ([WriteChrome], [WriteOTLP]).
//
// It renders what happened and decides nothing; progress while a build runs is package ui's.
//
// # Invariants
//
//   - The output is a function of the events, their times and the images: no clock, no random number.
//   - The page needs no other file and no network, and nothing that a step prints becomes markup or script.
//   - Memory is bounded, whatever steps print: of each the end of its output is kept.
package report

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// Class is what a step spent its time on.
type Class string

// The classes of steps.
const (
	Native   Class = "native"   // a process ran on this machine's processor
	Emulated Class = "emulated" // a process ran under an emulator
	Files    Class = "files"    // files were put together, no process ran
	Transfer Class = "transfer" // bytes came from or went to a registry or file
	Cached   Class = "cached"   // nothing was done
)

// Step is one vertex or transfer of a build.
type Step struct {
	ID       string
	Name     string // "RUN go build ./..."
	Source   string // "rootfs.yaml:12"; "" for transfers
	Platform string // "linux/arm64"; "" for what platforms share
	Runner   string // Emulated: "qemu-aarch64 7.2.22"
	Class    Class
	Start    time.Time
	End      time.Time
	Canceled bool
	Error    string
	Bytes    int64  // Transfer: moved
	Output   string // the end of what it printed
}

// Duration is how long the step took.
func (s Step) Duration() time.Duration { return s.End.Sub(s.Start) }

// Layer is one layer of an image.
type Layer struct {
	Digest    string
	Size      int64  // bytes, as stored
	CreatedBy string // from the image's history; may be ""
}

// Image is one platform's result.
type Image struct {
	Platform string
	Digest   string
	Layers   []Layer // bottom first
}

// Build is a finished build.
type Build struct {
	Name   string // what was built: the tags, or the file
	Digest string // of the result; "" when it failed
	Error  string
	Start  time.Time
	End    time.Time
	Steps  []Step // by their start
	Images []Image
}

// Duration is the time from the first event to the last.
func (b Build) Duration() time.Duration { return b.End.Sub(b.Start) }

// tailLimit is how much of a step's output is kept.
const tailLimit = 8 << 10

// Recorder collects the events of one build.
type Recorder struct {
	now func() time.Time

	mu    sync.Mutex // guards what follows
	start time.Time
	steps []*recorded
	open  map[string]*recorded
}

type recorded struct {
	Step
	tail   []byte
	cached bool
	over   bool
}

// NewRecorder starts a recording; now gives the time of an event.
func NewRecorder(now func() time.Time) *Recorder {
	return &Recorder{now: now, start: now(), open: map[string]*recorded{}}
}

// Sink returns where events go. It may be called concurrently.
func (r *Recorder) Sink() event.Sink {
	return func(e event.Event) {
		at := r.now()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.add(at, e)
	}
}

func (r *Recorder) add(at time.Time, e event.Event) {
	switch e.Kind {
	case event.VertexStart:
		s := r.begin(at, e.ID)
		s.Name, s.Source, s.Platform, s.Runner = e.Name, e.Source, e.Platform, e.Runner
		s.Class = classOf(e)
	case event.VertexDone:
		s := r.begin(at, e.ID)
		s.cached, s.Canceled, s.Error = e.Cached, e.Canceled, e.Error
		r.finish(s, at)
	case event.Log:
		if s, ok := r.open[e.ID]; ok {
			s.tail = append(s.tail, e.Data...)
			if len(s.tail) > 2*tailLimit {
				s.tail = append([]byte(nil), s.tail[len(s.tail)-tailLimit:]...)
			}
		}
	case event.Progress:
		s, ok := r.open[e.ID]
		if ok && s.Class != Transfer { // bytes of a vertex: the vertex says when it is over
			s.Bytes = max(s.Bytes, e.Current)
			return
		}
		s = r.begin(at, e.ID)
		if s.Class == "" {
			s.Name, s.Class = e.Item, Transfer
		}
		s.Bytes, s.End = max(s.Bytes, e.Current), at
		if e.Total > 0 && e.Current >= e.Total {
			r.finish(s, at)
		}
	case event.Warning: // they are in the log
	}
}

// begin returns the open step of that id, made when there is none.
func (r *Recorder) begin(at time.Time, id string) *recorded {
	if s, ok := r.open[id]; ok {
		return s
	}
	s := &recorded{Step: Step{ID: id, Start: at, End: at}}
	r.open[id] = s
	r.steps = append(r.steps, s)
	return s
}

func (r *Recorder) finish(s *recorded, at time.Time) {
	s.End, s.over = at, true
	if s.cached {
		s.Class = Cached
	}
	delete(r.open, s.ID)
}

// classOf tells a vertex's class from its first event.
func classOf(e event.Event) Class {
	switch {
	case e.Runner == event.RunnerNative:
		return Native
	case e.Runner != "":
		return Emulated
	case strings.HasPrefix(e.Name, "exporting "), strings.HasPrefix(e.Name, "FROM "):
		return Transfer
	}
	return Files
}

// Build returns what was recorded so far. Steps that have not ended end now.
func (r *Recorder) Build() Build {
	at := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	b := Build{Start: r.start, End: at}
	for _, s := range r.steps {
		step := s.Step
		if !s.over && s.Class != Transfer {
			step.End, step.Canceled = at, true
		}
		tail := s.tail[max(0, len(s.tail)-tailLimit):]
		step.Output = strings.ToValidUTF8(string(tail), "\uFFFD")
		b.Steps = append(b.Steps, step)
	}
	slices.SortStableFunc(b.Steps, func(x, y Step) int { return x.Start.Compare(y.Start) })
	return b
}

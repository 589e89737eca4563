// Package event is the vocabulary of progress: one stream of typed events that
// every stage emits and every display (plain, tty, rawjson) reads.
package event

import "sync"

// Kind says what an Event reports.
type Kind string

// The kinds of events.
const (
	VertexStart Kind = "start"   // work on a vertex began
	VertexDone  Kind = "done"    // it ended: Cached, Error
	Log         Kind = "log"     // output of a step: Stream, Data
	Progress    Kind = "status"  // bytes moved: Item, Current, Total
	Warning     Kind = "warning" // Text, Source
)

// RunnerNative is the Runner of a vertex whose process runs on this machine's own processor.
const RunnerNative = "native"

// Event is one report. Which fields are set follows from Kind.
type Event struct {
	Kind     Kind   `json:"kind"`
	ID       string `json:"id,omitempty"`       // the vertex (its digest), or a transfer
	Platform string `json:"platform,omitempty"` // "linux/arm64"; "" for shared work
	Name     string `json:"name,omitempty"`     // "RUN go build ./..."
	Step     int    `json:"step,omitempty"`     // 2 of [linux/arm64 2/3]; 0 when it has none
	Steps    int    `json:"steps,omitempty"`
	Source   string `json:"source,omitempty"` // "rootfs.yaml:12"
	Runner   string `json:"runner,omitempty"` // start of a vertex that runs a process: RunnerNative, or the emulator, "qemu-aarch64 7.2.22"
	Node     string `json:"node,omitempty"`   // the node of a builder that did it; "" is this machine
	Cached   bool   `json:"cached,omitempty"`
	Canceled bool   `json:"canceled,omitempty"`
	Error    string `json:"error,omitempty"`
	Stream   int    `json:"stream,omitempty"` // 1 stdout, 2 stderr
	Data     []byte `json:"data,omitempty"`
	Item     string `json:"item,omitempty"` // "sha256:abc... pulling"
	Current  int64  `json:"current,omitempty"`
	Total    int64  `json:"total,omitempty"` // 0: unknown
	Text     string `json:"text,omitempty"`
}

// A Sink receives build events in order, one call at a time. It must not block:
// renderers buffer. A nil Sink is legal and drops everything.
type Sink func(Event)

// Emit delivers e, or drops it when s is nil.
func (s Sink) Emit(e Event) {
	if s != nil {
		s(e)
	}
}

// Serial wraps s so that concurrent emitters call it one at a time. Data is
// copied, so that an emitter may use its buffer again.
func Serial(s Sink) Sink {
	if s == nil {
		return nil
	}
	var delivery sync.Mutex
	return func(e Event) {
		if e.Data != nil {
			e.Data = append([]byte(nil), e.Data...)
		}
		delivery.Lock()
		defer delivery.Unlock()
		s(e)
	}
}

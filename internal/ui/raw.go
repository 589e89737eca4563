package ui

import (
	"bufio"
	"encoding/json"
	"io"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// Record is a line of RawJSON: an event and when it came.
type Record struct {
	Time time.Time `json:"time"`
	event.Event
}

// raw is events as JSON, one a line, otherwise as they came.
type raw struct {
	w   *bufio.Writer
	enc *json.Encoder
}

func newRaw(w io.Writer) *raw {
	b := bufio.NewWriterSize(w, 32<<10)
	return &raw{b, json.NewEncoder(b)}
}

func (r *raw) event(at time.Time, e event.Event) { _ = r.enc.Encode(Record{at.UTC(), e}) } // writer knows no errors
func (r *raw) flush()                            { _ = r.w.Flush() }
func (r *raw) clear()                            { r.flush() }
func (r *raw) tick(time.Time)                    {}
func (r *raw) close(time.Time)                   { r.flush() }

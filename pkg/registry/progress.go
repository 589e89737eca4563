package registry

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// progress reports how far one transfer is: at its start, at its end, and
// between them as often as a display can use, counted in bytes and not in time.
type progress struct {
	sink event.Sink
	e    event.Event
	step int64

	moved sync.Mutex // the transport sends on a goroutine of its own
	last  int64      // what was reported
}

// minStep is the least number of bytes between two reports.
const minStep = 256 << 10

// track starts a transfer; verb is "pulling" or "pushing".
func (c *Client) track(verb string, d digest.Digest, total int64) *progress {
	id := d.Encoded()
	if len(id) > 12 {
		id = id[:12]
	}
	p := &progress{
		sink: c.events,
		e:    event.Event{Kind: event.Progress, ID: d.String(), Item: verb + " " + d.Algorithm().String() + ":" + id, Total: max(total, 0)},
		step: max(minStep, total/100),
	}
	p.sink.Emit(p.e)
	return p
}

// at reports that n bytes of the whole have moved. It may go back: a part that
// was lost is moved again.
func (p *progress) at(n int64) {
	p.moved.Lock()
	defer p.moved.Unlock()
	if n == p.last || n < p.last+p.step && n >= p.last && n != p.e.Total {
		return
	}
	p.last = n
	e := p.e
	e.Current = n
	p.sink.Emit(e)
}

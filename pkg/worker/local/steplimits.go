package local

import (
	"fmt"
	"io"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// limit bounds a step. That bounds are kept by less than a cgroup is said once.
func (w *Worker) limit(step *sandbox.Step, pool *sandbox.Pool) {
	step.Resources = w.o.Limits
	if step.Resources == (sandbox.Resources{}) {
		return
	}
	w.watched.Do(func() {
		if err := pool.Watched(step.Resources); err != nil {
			w.o.Events.Emit(event.Event{Kind: event.Warning, Text: "no cgroup for steps: they are kept to --memory, --pids and --cpus by watching them and by rlimits, which sees them a moment late: " + err.Error() + " (`manifestctl doctor` has the mend)"})
		}
	})
}

// stepLog turns the output of a step into events, up to a limit.
type stepLog struct {
	w *Worker
	v *graph.Vertex

	mu      sync.Mutex // guards what follows: the two streams come side by side
	left    int64
	clipped bool
}

type logStream struct {
	log    *stepLog
	number int
}

func (l *stepLog) stream(number int) io.Writer { return logStream{l, number} }

// Write implements io.Writer. What is over the limit is dropped, and that it is said.
func (s logStream) Write(p []byte) (int, error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	show := p
	if limit := l.w.o.LogLimit; limit > 0 {
		if l.clipped {
			return len(p), nil
		}
		show = p[:min(int64(len(p)), l.left)]
		l.left -= int64(len(show))
		if len(show) < len(p) {
			l.clipped = true
			show = fmt.Appendf(show[:len(show):len(show)], "\n[output clipped: the limit of %d bytes is reached (--log-limit)]\n", limit)
		}
	}
	l.w.o.Events.Emit(event.Event{Kind: event.Log, ID: l.v.Digest().String(), Stream: s.number, Data: show})
	return len(p), nil
}

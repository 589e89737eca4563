package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

const (
	// movementStart is how long a transfer goes on before a line is shown: short ones say only their result.
	movementStart = 2 * time.Second
	// movementEvery is the time between two lines.
	movementEvery = 5 * time.Second
	movementTick  = 500 * time.Millisecond
)

// movement writes a line now and then about how far transfers are, for logs. It reads the events of a registry client.
type movement struct {
	w     io.Writer
	now   func() time.Time
	ticks <-chan time.Time
	stop  func()
	done  chan struct{}
	end   chan struct{}

	counting sync.Mutex // guards what follows
	moving   map[string]event.Event
	ended    int   // transfers
	bytes    int64 // of what has ended
	seen     int64 // bytes that were moved when the last line was written
	began    time.Time
	shown    time.Time
}

// newMovement starts to watch; nil ticks are the clock's.
func newMovement(e *env, ticks <-chan time.Time) *movement {
	m := &movement{
		w: e.stderr, now: e.now, moving: map[string]event.Event{}, ticks: ticks, stop: func() {},
		done: make(chan struct{}), end: make(chan struct{}), began: e.now(),
	}
	if ticks == nil {
		t := time.NewTicker(movementTick)
		m.ticks, m.stop = t.C, t.Stop
	}
	go m.run()
	return m
}

func (m *movement) run() {
	defer close(m.done)
	for {
		select {
		case <-m.end:
			return
		case <-m.ticks:
			m.show()
		}
	}
}

// event takes in what a client reports.
func (m *movement) event(ev event.Event) {
	if ev.Kind != event.Progress {
		return
	}
	m.counting.Lock()
	defer m.counting.Unlock()
	key := ev.ID + " " + ev.Item
	if ev.Total > 0 && ev.Current >= ev.Total {
		delete(m.moving, key)
		m.ended++
		m.bytes += ev.Total
		return
	}
	m.moving[key] = ev
}

// show writes a line when it is time for one and something has moved.
func (m *movement) show() {
	m.counting.Lock()
	defer m.counting.Unlock()
	now := m.now()
	if len(m.moving) == 0 || now.Sub(m.began) < movementStart || now.Sub(m.shown) < movementEvery {
		return
	}
	m.shown = now
	line, moved := m.line(now)
	if moved != m.seen {
		fmt.Fprintln(m.w, line)
	}
	m.seen = moved
}

// line says how far everything is: "pushing 3, pulling 1: 120.0 MB of 600.0 MB, 12 done, 24.0 MB/s".
func (m *movement) line(now time.Time) (string, int64) {
	moved, total := m.bytes, m.bytes
	verbs := map[string]int{}
	for _, ev := range m.moving {
		moved += ev.Current
		total += max(ev.Total, ev.Current)
		verb, _, _ := strings.Cut(ev.Item, " ")
		verbs[verb]++
	}
	var parts []string
	for _, verb := range []string{"pulling", "pushing"} {
		if n := verbs[verb]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", verb, n))
		}
	}
	text := fmt.Sprintf("%s: %s of %s, %d done", strings.Join(parts, ", "), bytesText(moved), bytesText(total), m.ended)
	if s := now.Sub(m.began).Seconds(); s > 0 {
		text += fmt.Sprintf(", %s/s", bytesText(int64(float64(moved)/s)))
	}
	return text, moved
}

// close ends the display.
func (m *movement) close() {
	m.stop()
	close(m.end)
	<-m.done
}

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// TestMovement: a transfer that takes long says how far it is, now and then, and when something has moved.
func TestMovement(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	m := newMovement(&env{stderr: &out, now: func() time.Time { return now }}, make(chan time.Time))
	move := func(item string, at int64) {
		m.event(event.Event{Kind: event.Progress, ID: item, Item: item + " sha256:x", Current: at, Total: 100_000_000})
	}
	move("pushing", 10_000_000)
	m.show() // too early
	now = now.Add(movementStart)
	move("pulling", 30_000_000)
	m.show()
	m.show() // too soon
	now = now.Add(movementEvery + time.Second)
	move("pulling", 100_000_000)
	move("pushing", 50_000_000)
	m.show()
	now = now.Add(movementEvery)
	m.show() // nothing has moved
	m.close()
	assert.Equal(t, "pulling 1, pushing 1: 40.0 MB of 200.0 MB, 0 done, 20.0 MB/s\npushing 1: 150.0 MB of 200.0 MB, 1 done, 18.8 MB/s\n", out.String())
}

// TestMovementOnTerminal: on a terminal the result of a transfer is the last thing that is shown, and nothing is drawn over it.
func TestMovementOnTerminal(t *testing.T) {
	var screen bytes.Buffer
	e := testEnv(map[string]string{"TERM": "xterm"})
	e.stdout, e.stderr, e.now = &screen, &screen, time.Now
	e.size = func() (int, int) { return 80, 24 }
	sink, done := e.transferProgress()
	sink(event.Event{Kind: event.Progress, ID: "a", Item: "pushing sha256:x", Current: 5, Total: 10})
	sink(event.Event{Kind: event.Progress, ID: "a", Item: "pushing sha256:x", Current: 10, Total: 10})
	e.note("moved 1 blob")
	require.NoError(t, e.println("sha256:result"))
	done()
	out := screen.String()
	at := strings.LastIndex(out, "sha256:result\n")
	require.Positive(t, at)
	assert.Contains(t, out[:at], "moved 1 blob\n")
	assert.NotRegexp(t, `\x1b\[[1-9]\d*A`, out[at:], "the cursor goes up into the result")
	assert.NotContains(t, out[at:], "Transferring")
	assert.Equal(t, &screen, e.stdout)
}

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

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

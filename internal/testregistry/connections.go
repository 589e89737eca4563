package testregistry

import (
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Connections counts those that a server has.
type Connections struct {
	mu   sync.Mutex // guards open
	open int
}

// CountConnections counts the connections of a server that is not started yet.
func CountConnections(srv *http.Server) *Connections {
	c := new(Connections)
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch state {
		case http.StateNew:
			c.open++
		case http.StateClosed, http.StateHijacked:
			c.open--
		case http.StateActive, http.StateIdle:
		}
	}
	return c
}

// Gone waits until nobody is connected any more: requests of a client that was killed may still be on their way.
func (c *Connections) Gone(tb testing.TB) {
	tb.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		open := c.open
		c.mu.Unlock()
		if open == 0 {
			return
		}
		if time.Since(start) > time.Minute {
			tb.Fatalf("%d connections stay", open)
		}
	}
}

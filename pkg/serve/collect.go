package serve

import (
	"context"
	"sync"
	"time"
)

// collectDelay is how long after a delete the space is given back: deletes come in crowds.
const collectDelay = 5 * time.Second

// collector gives back the space of what was deleted.
type collector struct {
	running sync.Mutex // guards the rest, and is held while it collects
	dirty   bool       // something was deleted since
	timer   *time.Timer
	closed  bool
}

// deleted notes that content may be without a repository now.
func (s *Server) deleted() {
	c := &s.collector
	c.running.Lock()
	defer c.running.Unlock()
	c.dirty = true
	if c.timer == nil && !c.closed {
		c.timer = time.AfterFunc(collectDelay, func() { s.collect(context.Background()) }) //nolint:forbidigo // no request's
	}
}

// collect removes content that no repository has any more, if something was deleted.
func (s *Server) collect(ctx context.Context) {
	c := &s.collector
	c.running.Lock()
	defer c.running.Unlock()
	if !c.dirty || c.closed {
		return
	}
	c.dirty, c.timer = false, nil
	freed, err := s.content.Collect(ctx)
	s.quota.give(freed)
	if err != nil {
		s.log.Warn("content without a repository was not removed", "error", err)
	}
}

// close waits for a collection that runs; none follows.
func (c *collector) close() {
	c.running.Lock()
	defer c.running.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

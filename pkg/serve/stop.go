package serve

import (
	"context"
	"net/http"
	"sync"
)

// underWay counts requests, so that the end can wait for those that it cut: http.Server.Close does not.
type underWay struct {
	mu    sync.Mutex // guards what follows
	n     int
	idle  chan struct{} // closed when the last of them has ended; nil until somebody waits
	ended bool          // no more are let in
}

// counted is h, whose requests are counted. One that comes when the end has come finds its connection cut.
func (u *underWay) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !u.enter() {
			panic(http.ErrAbortHandler)
		}
		defer u.leave()
		h.ServeHTTP(w, r)
	})
}

func (u *underWay) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return false
	}
	u.n++
	return true
}

func (u *underWay) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.idle != nil {
		close(u.idle)
	}
}

// end lets no more in and waits for those that are.
func (u *underWay) end() {
	u.mu.Lock()
	u.ended = true
	idle := make(chan struct{})
	if u.n == 0 {
		close(idle)
	} else {
		u.idle = idle
	}
	u.mu.Unlock()
	<-idle
}

// stop takes no new connections and lets requests end that run, the registry's before those of monitoring, as long as
// Timeouts.Stop says. Those that run longer lose their connections, and with that what they read, write and wait for.
func (s *Server) stop(ctx context.Context, servers []*http.Server, running *underWay) {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeouts.stop())
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(stop); err != nil {
			s.log.Warn("ending requests that run", "error", err)
			_ = srv.Close()
		}
	}
	running.end() // what they began is put away before the content is closed
}

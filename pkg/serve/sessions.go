package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxSessions is how many uploads may be open at once: each holds a file, and
	// with the store a megabyte, too.
	maxSessions = 512
	// sessionLife is how long an upload may lie untouched.
	sessionLife = time.Hour
	// busyWait is how long a request waits for one that writes to the same
	// upload: after a cut connection the server may notice later than the client.
	busyWait = 10 * time.Second
)

// sessions are the uploads that are open. They do not outlive the process.
type sessions struct {
	table  sync.Mutex
	byID   map[string]*session
	closed bool
}

// session is one upload, of one repository and one user.
type session struct {
	id, repo string
	user     string
	owner    *sessions
	busy     chan struct{} // holds a value while a request writes
	up       upload        // used by whoever holds busy
	offset   atomic.Int64  // bytes that are certain: read without waiting
	expiry   *time.Timer
}

// open registers an upload. Its name cannot be guessed.
func (s *sessions) open(rt route, up upload) (*session, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	se := &session{id: hex.EncodeToString(id[:]), repo: rt.repo, user: rt.user, owner: s, busy: make(chan struct{}, 1), up: up}
	s.table.Lock()
	defer s.table.Unlock()
	if s.closed || len(s.byID) >= maxSessions {
		return nil, codeTooMany
	}
	if s.byID == nil {
		s.byID = map[string]*session{}
	}
	s.byID[se.id] = se
	se.expiry = time.AfterFunc(sessionLife, se.expire)
	return se, nil
}

// get finds the upload that a request is about: of its repository, begun by its user.
func (s *sessions) get(rt route) (*session, error) {
	s.table.Lock()
	defer s.table.Unlock()
	se := s.byID[rt.id]
	if se == nil || se.repo != rt.repo || se.user != rt.user {
		return nil, codeUploadUnknown
	}
	se.expiry.Reset(sessionLife)
	return se, nil
}

// count is how many uploads are open.
func (s *sessions) count() int {
	s.table.Lock()
	defer s.table.Unlock()
	return len(s.byID)
}

// full reports whether no more uploads can begin.
func (s *sessions) full() bool {
	s.table.Lock()
	defer s.table.Unlock()
	return s.closed || len(s.byID) >= maxSessions
}

// acquire finds an upload and waits until nobody else writes to it.
func (s *sessions) acquire(ctx context.Context, rt route) (*session, error) {
	se, err := s.get(rt)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	select {
	case se.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, codeBusy
	}
	if _, err := s.get(rt); err != nil { // it ended while we waited
		<-se.busy
		return nil, err
	}
	return se, nil
}

func (se *session) release() {
	se.owner.table.Lock()
	if se.owner.byID[se.id] == se {
		se.expiry.Reset(sessionLife)
	}
	se.owner.table.Unlock()
	<-se.busy
}

// end forgets the upload and drops its bytes. The caller holds busy.
func (se *session) end() {
	se.owner.table.Lock()
	delete(se.owner.byID, se.id)
	se.expiry.Stop()
	se.owner.table.Unlock()
	se.up.Abort()
}

func (se *session) expire() {
	select {
	case se.busy <- struct{}{}:
		se.end()
		<-se.busy
	default: // somebody writes: not dead yet
	}
}

// close drops all uploads.
func (s *sessions) close() {
	s.table.Lock()
	s.closed = true
	var all []*session
	for _, se := range s.byID {
		all = append(all, se)
	}
	s.table.Unlock()
	for _, se := range all {
		se.busy <- struct{}{}
		se.end()
		<-se.busy
	}
}

// algorithm of the digest that a client announces, or the usual one.
func algorithm(d digest.Digest) digest.Algorithm {
	if d != "" {
		return d.Algorithm()
	}
	return digest.Canonical
}

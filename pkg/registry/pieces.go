package registry

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync"
)

// pieces gives parts of a source to requests. A part that went whole leaves the source open for the one after it: else
// each would read everything before it again, and a source is hashed as it is read.
type pieces struct {
	open     Open
	progress *progress

	state  sync.Mutex // guards what follows: the transport reads, and may go on after its request failed
	rest   io.ReadCloser
	at     int64 // what rest reads next
	closed bool
}

// from opens n bytes from offset on, of size in all.
func (s *pieces) from(ctx context.Context, offset, n, size int64) (io.ReadCloser, error) {
	if n == 0 {
		return http.NoBody, nil
	}
	rc := s.take(offset)
	if rc == nil {
		var err error
		if rc, err = s.open(ctx); err != nil {
			return nil, err
		}
		if err := skipTo(rc, offset); err != nil {
			_ = rc.Close()
			return nil, err
		}
	}
	return &piece{ReadCloser: rc, of: s, left: n, at: offset, whole: offset+n == size}, nil
}

// take gives the source that is open at offset, if there is one. Another is closed.
func (s *pieces) take(offset int64) io.ReadCloser {
	s.state.Lock()
	defer s.state.Unlock()
	rc := s.rest
	s.rest = nil
	if rc != nil && s.at != offset {
		_ = rc.Close()
		return nil
	}
	return rc
}

// keep takes back a source of which everything before at was read.
func (s *pieces) keep(rc io.ReadCloser, at int64) {
	s.state.Lock()
	defer s.state.Unlock()
	if s.rest != nil {
		_ = s.rest.Close()
	}
	s.rest, s.at = rc, at
	if s.closed {
		s.rest = nil
		_ = rc.Close()
	}
}

// close closes what is open for a part that nobody asked for.
func (s *pieces) close() {
	_ = s.take(-1)
	s.state.Lock()
	defer s.state.Unlock()
	s.closed = true
}

func skipTo(r io.Reader, offset int64) error {
	if offset == 0 {
		return nil
	}
	if s, ok := r.(io.Seeker); ok {
		if _, err := s.Seek(offset, io.SeekStart); err == nil {
			return nil
		}
	}
	_, err := io.CopyN(io.Discard, r, offset)
	return err
}

// piece is a part of a source. The last part reads on to the source's own end,
// so that a source that verifies itself there has done so.
type piece struct {
	io.ReadCloser // http.NoBody once the source is kept for the next part
	of            *pieces
	left, at      int64
	whole         bool
}

// Aside is that of the source, for its last part: only there is a verdict.
func (p *piece) Aside() (file *os.File, check func(n int64) error) {
	if a, ok := p.ReadCloser.(Aside); ok && p.whole {
		return a.Aside()
	}
	return nil, nil
}

// passed notes bytes that were sent without a Read.
func (p *piece) passed(n int64) {
	p.left -= n
	p.at += n
	p.of.progress.at(p.at)
}

func (p *piece) Read(b []byte) (int, error) {
	if p.left == 0 && !p.whole {
		return 0, io.EOF
	}
	if !p.whole && int64(len(b)) > p.left {
		b = b[:p.left]
	}
	n, err := p.ReadCloser.Read(b)
	p.passed(int64(n))
	if p.left == 0 && !p.whole && err == nil {
		p.of.keep(p.ReadCloser, p.at)
		p.ReadCloser = http.NoBody
	}
	return n, err
}

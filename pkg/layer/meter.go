package layer

import (
	"context"
	"fmt"
	"hash"
	"io"
)

// meterSize is the read size: large enough that the cost of a call does not show.
const meterSize = 256 << 10

// meter reads a stream once through one buffer, counting and hashing it. Small
// pieces are handed out without copying.
type meter struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call of ReadTOC or Apply
	r      io.Reader
	hash   hash.Hash // nil: not wanted
	buf    []byte
	lo, hi int
	pos    int64 // of buf[lo] in the stream
	limit  int64 // bytes; 0 is none
	read   int64 // bytes read from r
	err    error // sticky, after buf is used up
}

func newMeter(ctx context.Context, r io.Reader, h hash.Hash, limit int64) *meter {
	return &meter{ctx: ctx, r: r, hash: h, buf: make([]byte, meterSize), limit: limit}
}

// fill reads more; it returns false when there is nothing more and m.err says why.
func (m *meter) fill() bool {
	if m.lo == m.hi {
		m.lo, m.hi = 0, 0
	} else if m.hi == len(m.buf) {
		copy(m.buf, m.buf[m.lo:m.hi])
		m.lo, m.hi = 0, m.hi-m.lo
	}
	for idle := 0; m.err == nil; idle++ {
		if err := context.Cause(m.ctx); err != nil {
			m.err = err
			break
		}
		n, err := m.r.Read(m.buf[m.hi:])
		if n < 0 || n > len(m.buf)-m.hi {
			m.err = fmt.Errorf("reader returned %d bytes for %d asked", n, len(m.buf)-m.hi)
			break
		}
		if m.hash != nil {
			m.hash.Write(m.buf[m.hi : m.hi+n])
		}
		m.hi += n
		m.read += int64(n)
		if m.limit > 0 && m.read > m.limit {
			m.hi = m.lo
			m.err = fmt.Errorf("%w: more than %d uncompressed bytes", ErrLimit, m.limit)
			break
		}
		m.err = err
		if n > 0 {
			return true
		}
		if idle > 100 {
			m.err = io.ErrNoProgress
		}
	}
	return false
}

// peek returns the next n bytes (n at most meterSize) without using them up. Fewer come with an
// error: io.EOF when there are none at all, else io.ErrUnexpectedEOF.
func (m *meter) peek(n int) ([]byte, error) {
	for m.hi-m.lo < n {
		if !m.fill() {
			if m.err == io.EOF && m.hi > m.lo {
				return m.buf[m.lo:m.hi], io.ErrUnexpectedEOF
			}
			return m.buf[m.lo:m.hi], m.err
		}
	}
	return m.buf[m.lo : m.lo+n], nil
}

// next is peek and advance.
func (m *meter) next(n int) ([]byte, error) {
	b, err := m.peek(n)
	m.advance(len(b))
	return b, err
}

func (m *meter) advance(n int) {
	m.lo += n
	m.pos += int64(n)
}

// chunk returns up to n buffered bytes, reading when there are none.
func (m *meter) chunk(n int64) ([]byte, error) {
	if m.lo == m.hi && !m.fill() {
		if m.err == io.EOF {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, m.err
	}
	b := m.buf[m.lo:m.hi]
	if int64(len(b)) > n {
		b = b[:n]
	}
	m.advance(len(b))
	return b, nil
}

// skip drops n bytes.
func (m *meter) skip(n int64) error {
	for n > 0 {
		b, err := m.chunk(n)
		if err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// drainZeros reads to the end of the stream and refuses anything but zeros.
func (m *meter) drainZeros() error {
	for {
		if m.lo == m.hi && !m.fill() {
			if m.err == io.EOF {
				return nil
			}
			return m.err
		}
		b := m.buf[m.lo:m.hi]
		if !allZero(b) {
			return fmt.Errorf("%w: data after the end of the archive at byte %d", ErrInvalid, m.pos)
		}
		m.advance(len(b))
	}
}

// allZero reports whether b holds zeros only.
func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

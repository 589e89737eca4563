package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// Threat: a file that is no longer what its name says must not come to be under that name. The kernel sends such a file
// without showing it to us; what is sent meanwhile is read and hashed on another core, and the last bytes, without which
// a registry has no blob, go only after the verdict. Should the file change between the two looks, the registry's own
// check of the digest remains, as with every other way from here to there.

// Aside is what an Open's reader may also be: a file of which one can send the bytes and another check them at the same
// time. check reads the next n bytes by itself; that of the last gives the verdict of the whole, and the file must not be
// taken for what it should be before. file is nil when there is none after all, and then Read goes on.
type Aside interface {
	Aside() (file *os.File, check func(n int64) error)
}

const (
	// asideMin is from how many bytes on it is worth a goroutine.
	asideMin = 256 << 10
	// asideWindow is how many bytes are checked and sent at a time: the two are never further apart than some of
	// them, so that what one has read the other finds in memory.
	asideWindow  = 4 << 20
	asideWindows = 2
	// asidePiece is what is sent in one call: a connection on which it takes longer than the idle time is given up.
	asidePiece = 64 << 10
	// asideHeld is how many bytes wait for the verdict.
	asideHeld = 32 << 10
)

// asideDial makes connections that send files aside.
func asideDial(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok && err == nil {
			return asideConn{tcp}, nil
		}
		return c, err
	}
}

// asideConn is a connection that knows our bodies. Under TLS nobody asks it: there the bytes have to be read anyway.
type asideConn struct{ *net.TCPConn }

// ReadFrom implements io.ReaderFrom, for net/http.
func (c asideConn) ReadFrom(r io.Reader) (int64, error) {
	if lr, ok := r.(*io.LimitedReader); ok && lr.N >= asideMin {
		if b, ok := lr.R.(*sendBody); ok {
			if n, done, err := b.aside(c.TCPConn, lr.N); done {
				lr.N -= n
				return n, err
			}
		}
	}
	return c.TCPConn.ReadFrom(r)
}

// aside sends the next n bytes of the body, which are all that is left of it. done is false when that is not for it to do.
func (b *sendBody) aside(to *net.TCPConn, n int64) (sent int64, done bool, err error) {
	p, ok := b.ReadCloser.(*piece)
	if !ok || n != b.left {
		return 0, false, nil
	}
	file, check := p.Aside()
	if file == nil {
		return 0, false, nil
	}
	c := startCheck(check)
	for sent < n && err == nil {
		window := min(n-sent, asideWindow)
		if n-sent-window < asideHeld {
			window = n - sent
		}
		b.w.timer.Stop() // the time that the check takes is not the registry's
		c.windows <- window
		last := sent+window == n
		if last {
			window -= asideHeld
		}
		var k int64
		k, err = b.sendFile(p, to, file, window)
		if sent += k; !last || err != nil {
			continue
		}
		b.w.timer.Stop()
		if err = c.end(); err != nil {
			return sent, true, b.fail(err)
		}
		k, err = b.sendFile(p, to, file, asideHeld)
		sent += k
	}
	// The file is not used any more when this returns. What is wrong with it says more than what came of that.
	if cerr := c.end(); err != nil && cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		err = b.fail(cerr)
	}
	b.sent = err == nil
	return sent, true, err
}

// sendFile sends the next n bytes of a file.
func (b *sendBody) sendFile(p *piece, to *net.TCPConn, file *os.File, n int64) (sent int64, err error) {
	for sent < n {
		b.w.reset(b.idle)
		k, err := to.ReadFrom(io.LimitReader(file, min(n-sent, asidePiece)))
		sent += k
		p.passed(k)
		b.state.Lock()
		b.left -= k
		end := b.left == 0
		b.state.Unlock()
		switch {
		case err != nil:
			return sent, err
		case k == 0:
			return sent, b.fail(fmt.Errorf("%w: %s was cut while it was sent", io.ErrUnexpectedEOF, file.Name()))
		case end:
			b.w.reset(b.wait)
		}
	}
	return sent, nil
}

// checking is a check on a goroutine of its own, which lasts until end.
type checking struct {
	windows chan int64 // what to check next
	done    chan struct{}
	err     error // once done
	ended   bool
}

func startCheck(check func(int64) error) *checking {
	c := &checking{windows: make(chan int64, asideWindows), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for n := range c.windows {
			if c.err == nil { // else whoever sends need not wait
				c.err = check(n)
			}
		}
	}()
	return c
}

// end waits for the last check and says what was wrong.
func (c *checking) end() error {
	if !c.ended {
		c.ended = true
		close(c.windows)
	}
	<-c.done
	return c.err
}

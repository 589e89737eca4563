package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// controlTerminal is what an agent says on a step's control socket, with the terminal's descriptor. What the parent says
// there is terminalReady once, and signals, by number.
const (
	controlTerminal = 't'
	terminalReady   = 0 // it has its size: the process may start
)

// console is the caller's side of a step that it talks to while it runs: signals, and the terminal when there is one.
type console struct {
	s      *Step
	sock   *os.File
	remote int // -1 once handed over
	ended  chan struct{}
	wait   sync.WaitGroup
	tty    atomic.Pointer[os.File]
	shown  chan struct{} // closed when all that the terminal showed was passed on
	busy   atomic.Bool   // something is passed on
}

// newConsole returns nil when the caller wants neither.
func newConsole(s *Step) (*console, error) {
	if !s.Terminal && s.Signals == nil {
		return nil, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a step's control socket: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, fmt.Errorf("making a step's control socket: %w", err)
	}
	return &console{s: s, sock: os.NewFile(uintptr(pair[0]), "control"), remote: pair[1], ended: make(chan struct{}), shown: make(chan struct{})}, nil
}

// start begins to serve it; the agent has the other end now.
func (c *console) start() {
	if c == nil {
		return
	}
	c.handOver()
	if !c.s.Terminal {
		close(c.shown)
		c.wait.Go(c.signals)
		return
	}
	c.wait.Go(func() {
		defer close(c.shown)
		if tty, err := c.receive(); err == nil {
			c.serve(tty)
		}
	})
}

func (c *console) signals() {
	for {
		select {
		case <-c.ended:
			return
		case sig, ok := <-c.s.Signals:
			if !ok {
				return
			}
			_, _ = c.sock.Write([]byte{byte(sig)}) // it may have ended
		}
	}
}

// receive waits for the terminal.
func (c *console) receive() (*os.File, error) {
	conn, err := c.sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fds []int
	var got error
	err = conn.Read(func(fd uintptr) bool {
		var b [1]byte
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := unix.Recvmsg(int(fd), b[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			got = err
		case n == 0:
			got = io.EOF // the step ended before
		default:
			fds, got = rights(oob[:oobn])
		}
		return true
	})
	if err = errors.Join(err, got); err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, os.ErrInvalid
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// eot is what is typed to end a terminal's input (VEOF of a new terminal).
const eot = 4

// serve connects the terminal with the caller until nobody in the step has it any more.
func (c *console) serve(tty *os.File) {
	c.tty.Store(tty)
	defer tty.Close()
	select {
	case size := <-c.s.Sizes: // the first one, so that the process starts with it
		resize(tty, size)
	default:
	}
	_, _ = c.sock.Write([]byte{terminalReady}) // it may have ended
	c.wait.Go(c.signals)
	c.wait.Go(func() {
		for {
			select {
			case <-c.ended:
				return
			case size, ok := <-c.s.Sizes:
				if !ok {
					return
				}
				resize(tty, size)
			}
		}
	})
	if c.s.Stdin != nil {
		go func() { // a reader that blocks is the caller's
			_, err := io.Copy(tty, c.s.Stdin)
			if err == nil {
				_, _ = tty.Write([]byte{eot}) // it may be gone
			}
		}()
	}
	out := c.s.Stdout
	if out == nil {
		out = io.Discard
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := tty.Read(buf)
		if n > 0 {
			c.busy.Store(true)
			_, _ = out.Write(buf[:n]) // the step goes on without a reader
			c.busy.Store(false)
		}
		if err != nil { // EIO: nobody has the other side
			return
		}
	}
}

func resize(tty *os.File, s Size) {
	conn, err := tty.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: s.Cols, Row: s.Rows})
	})
}

func (c *console) handOver() {
	if c.remote >= 0 {
		unix.Close(c.remote)
		c.remote = -1
	}
}

// finish waits until what the terminal showed was passed on. Somebody outside of the sandbox may still hold it: not for ever.
func (c *console) finish() {
	if c == nil {
		return
	}
	for {
		select {
		case <-c.shown:
			return
		case <-time.After(drainPatience):
		}
		if !c.busy.Load() && !c.pending() {
			return
		}
	}
}

// pending reports whether there is something that was not passed on.
func (c *console) pending() bool {
	tty := c.tty.Load()
	if tty == nil {
		return false
	}
	conn, err := tty.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err == nil && n > 0
}

func (c *console) close() {
	if c == nil {
		return
	}
	c.handOver()
	close(c.ended)
	c.sock.Close()
	if tty := c.tty.Load(); tty != nil {
		tty.Close() // wakes who reads it, should somebody outside of the sandbox hold its other side
	}
	c.wait.Wait()
}

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// drainPatience is how long a pipe may stay open and empty after every process of a step is gone: somebody outside
// of the sandbox was given its other end.
const drainPatience = 2 * time.Second

// pipeSize is asked for pipes of diffs, to have fewer switches between agent and reader.
const pipeSize = 1 << 20

// stream copies what comes out of a pipe, whose other end goes to the agent, to a writer of the caller.
type stream struct {
	w      io.Writer
	local  *os.File
	remote int  // -1 once handed over
	strict bool // stop and break the pipe when the writer fails; else go on draining, so that the step does not block
	done   chan error
}

func newStream(w io.Writer, diff bool) (*stream, error) {
	var fds [2]int
	// Not os.Pipe: it makes both ends non-blocking, and programs do not expect that of their stdout.
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making a pipe for a step: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, fmt.Errorf("making a pipe for a step: %w", err)
	}
	if diff {
		_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // over the user's limit: stays as it was
	}
	return &stream{w: w, local: os.NewFile(uintptr(fds[0]), "step"), remote: fds[1], strict: diff}, nil
}

func (s *stream) start() {
	s.done = make(chan error, 1)
	go func() { s.done <- s.copy() }()
}

func (s *stream) copy() error {
	buf := make([]byte, 64<<10)
	var failed error
	for {
		n, err := s.local.Read(buf)
		if n > 0 && failed == nil {
			if _, werr := s.w.Write(buf[:n]); werr != nil {
				failed = werr
				if s.strict {
					return errors.Join(failed, s.local.Close())
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return failed
		case errors.Is(err, os.ErrDeadlineExceeded):
			return failed // nothing came for drainPatience after the step's end
		case err != nil:
			return errors.Join(failed, fmt.Errorf("reading a step's output: %w", err))
		}
	}
}

// handOver closes our copy of the end that the agent has now.
func (s *stream) handOver() {
	if s.remote >= 0 {
		unix.Close(s.remote)
		s.remote = -1
	}
}

// finish waits until everything was copied: to the end of the pipe, which comes with the end of the step's last process.
func (s *stream) finish() error {
	s.handOver()
	for {
		select {
		case err := <-s.done:
			return err
		case <-time.After(drainPatience):
		}
		// A slow writer still has something to read; a pipe that is empty and open has leaked.
		if n, err := s.pending(); err == nil && n == 0 {
			if s.local.SetReadDeadline(time.Unix(1, 0)) != nil {
				s.local.Close()
			}
		}
	}
}

func (s *stream) pending() (n int, err error) {
	c, err := s.local.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := c.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(cerr, err)
}

func (s *stream) close() {
	s.handOver()
	s.local.Close()
}

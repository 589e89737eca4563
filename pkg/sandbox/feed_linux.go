package sandbox

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// feed copies what a reader of the caller has into a pipe, whose other end goes to the agent as a step's stdin.
type feed struct {
	local  *os.File
	remote int // -1 once handed over
}

// newFeed returns the step's end of the pipe. A nil reader has none.
func newFeed(r io.Reader) (int, *feed, error) {
	if r == nil {
		return -1, &feed{remote: -1}, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("making a pipe for a step: %w", err)
	}
	if err := unix.SetNonblock(fds[1], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, nil, fmt.Errorf("making a pipe for a step: %w", err)
	}
	f := &feed{local: os.NewFile(uintptr(fds[1]), "stdin"), remote: fds[0]}
	go func() {
		_, _ = io.Copy(f.local, r) // the step may read as much as it likes
		f.local.Close()
	}()
	return fds[0], f, nil
}

func (f *feed) handOver() {
	if f.remote >= 0 {
		unix.Close(f.remote)
		f.remote = -1
	}
}

func (f *feed) close() {
	f.handOver()
	if f.local != nil {
		f.local.Close() // wakes the copying; a reader that blocks is the caller's
	}
}

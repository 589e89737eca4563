//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// forwarded are the signals that run passes on beside those that end other commands.
var forwarded = []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// terminal is the one that this program was started on, in raw mode until it is closed: what is typed is passed on as it is.
type terminal struct {
	*os.File // opened anew, so that closing it ends who reads
	sizes    chan build.Size
	resized  chan os.Signal
	done     chan struct{}
	restore  func()
}

func openTerminal() (*terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the terminal: %w", err)
	}
	t := &terminal{File: f, sizes: make(chan build.Size, 1), resized: make(chan os.Signal, 1), done: make(chan struct{})}
	err = t.control(func(fd int) error {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		t.restore = func() { _ = t.control(func(fd int) error { return term.Restore(fd, state) }) }
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the terminal's raw mode: %w", err), f.Close())
	}
	signal.Notify(t.resized, syscall.SIGWINCH)
	t.measure()
	go func() {
		defer close(t.done)
		for range t.resized {
			t.measure()
		}
	}()
	return t, nil
}

// control uses the descriptor without making it blocking, as Fd would.
func (t *terminal) control(f func(fd int) error) error {
	conn, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// measure leaves the newest size to be read.
func (t *terminal) measure() {
	var size build.Size
	err := t.control(func(fd int) error {
		w, h, err := term.GetSize(fd)
		size = build.Size{Cols: uint16(w), Rows: uint16(h)}
		return err
	})
	if err != nil {
		return
	}
	for {
		select {
		case t.sizes <- size:
			return
		case <-t.sizes: // one that nobody has read
		}
	}
}

// Close gives the terminal back as it was.
func (t *terminal) Close() error {
	signal.Stop(t.resized)
	close(t.resized)
	<-t.done
	t.restore()
	return t.File.Close()
}

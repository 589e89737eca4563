package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalError is the cause of a context that a signal ended.
type signalError struct {
	text   string
	code   int
	signal os.Signal
}

func (e *signalError) Error() string { return e.text }

// echo is how long after a signal the same one is taken for it: a person who presses Ctrl-C twice needs longer.
const echo = 100 * time.Millisecond

// withSignals returns a context that the first SIGINT, SIGTERM or SIGHUP cancels, with a signalError as
// the cause, so that steps are killed and temporary files removed. A second signal ends the process by exit at once, unless it is
// the first one once more: timeout(1) sends its signal to the program and to the program's group.
func withSignals(parent context.Context, now func() time.Time, exit func(int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		var first os.Signal
		var at time.Time
		for {
			select {
			case <-ended:
				return
			case s := <-received:
				cause := signalCause(s)
				switch {
				case ctx.Err() == nil:
					first, at = s, now()
					cancel(cause)
				case s != first || now().Sub(at) > echo:
					exit(cause.code)
					return
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		close(ended)
		cancel(nil)
	}
}

func signalCause(s os.Signal) *signalError {
	if s == os.Interrupt {
		return &signalError{text: "interrupted", code: exitInterrupted, signal: s}
	}
	return &signalError{text: "terminated", code: exitTerminated, signal: s}
}

// signalled returns the signal that ended ctx, if one did.
func signalled(ctx context.Context) (*signalError, bool) {
	var s *signalError
	ok := errors.As(context.Cause(ctx), &s)
	return s, ok
}

// forwardPatience is how long a program has to take a signal before it is taken as not running.
const forwardPatience = 500 * time.Millisecond

// forwardSignals turns what would end ctx into signals for a program, as long as somebody receives them: then the program
// decides what they mean. Else, and at the end of a time limit, the returned context ends as ctx does.
func forwardSignals(ctx context.Context) (context.Context, <-chan syscall.Signal, func()) {
	forward, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	signals := make(chan syscall.Signal)
	pass := func(s os.Signal) bool {
		sig, ok := s.(syscall.Signal)
		if !ok {
			return false
		}
		select {
		case signals <- sig:
			return true
		case <-time.After(forwardPatience):
			return false
		}
	}
	stop := context.AfterFunc(ctx, func() {
		if s, ok := signalled(ctx); !ok || !pass(s.signal) {
			cancel(context.Cause(ctx))
		}
	})
	received := make(chan os.Signal, 4)
	if len(forwarded) > 0 {
		signal.Notify(received, forwarded...)
	}
	go func() {
		for s := range received {
			pass(s)
		}
	}()
	return forward, signals, func() {
		stop()
		signal.Stop(received)
		close(received)
		cancel(nil)
	}
}

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// signalError is the cause of a context that a signal ended.
type signalError struct {
	text string
	code int
}

func (e *signalError) Error() string { return e.text }

// withSignals returns a context that the first SIGINT, SIGTERM or SIGHUP cancels, with a signalError as
// the cause, so that steps are killed and temporary files removed. A second signal ends the process by exit at once.
func withSignals(parent context.Context, exit func(int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case s := <-received:
				cause := signalCause(s)
				if ctx.Err() != nil {
					exit(cause.code)
					return
				}
				cancel(cause)
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
		return &signalError{text: "interrupted", code: exitInterrupted}
	}
	return &signalError{text: "terminated", code: exitTerminated}
}

// signalled returns the signal that ended ctx, if one did.
func signalled(ctx context.Context) (*signalError, bool) {
	var s *signalError
	ok := errors.As(context.Cause(ctx), &s)
	return s, ok
}

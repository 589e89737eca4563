package dockerfile

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/errdefs"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
)

// ErrInvalid is the kind of every mistake in a Dockerfile.
var ErrInvalid = errors.New("invalid Dockerfile")

// Error is a mistake at a place of a Dockerfile. What the frontend asked for in vain (an image) is its cause.
type Error struct {
	Source  string         // "Dockerfile:7"
	Excerpt *graph.Excerpt // nil when the frontend did not say where
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Source, e.Err) }

// Unwrap gives the frontend's error.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrInvalid) true, but where the Dockerfile is right and what it asked for failed: a registry that
// does not answer.
func (e *Error) Is(target error) bool {
	var outside *hostError
	return target == ErrInvalid && !errors.As(e.Err, &outside)
}

// Lines are the lines in question, as messages show them.
func (e *Error) Lines() *graph.Excerpt { return e.Excerpt }

// hostError is a failure of what a Dockerfile asked for.
type hostError struct{ error }

func (e *hostError) Unwrap() error { return e.error }

// ofHost marks an error of the host; nil stays nil.
func ofHost(err error) error {
	if err == nil {
		return nil
	}
	return &hostError{err}
}

// explain gives an error of the frontend its place.
func (b *bridge) explain(err error) error {
	var decoded *llb.Error
	if errors.As(err, &decoded) {
		return err // has its place
	}
	out := &Error{Source: b.in.file, Err: err}
	for _, s := range errdefs.Sources(err) {
		if s.Info == nil || len(s.Ranges) == 0 {
			continue
		}
		from, to := 0, 0
		for _, r := range s.Ranges {
			start := int(r.GetStart().GetLine())
			if start <= 0 {
				continue
			}
			if from == 0 || start < from {
				from = start
			}
			to = max(to, start, int(r.GetEnd().GetLine()))
		}
		if from == 0 {
			continue
		}
		out.Source = fmt.Sprintf("%s:%d", s.Info.Filename, from)
		out.Excerpt = &graph.Excerpt{File: s.Info.Filename, Text: s.Info.Data, From: from, To: to}
		break
	}
	return out
}

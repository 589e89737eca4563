// Package spec is the frontend for rootfs.yaml (DESIGN.md section 5): it reads,
// checks and expands a spec into a graph. It never writes and runs nothing.
package spec

import (
	"context"
	"errors"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrInvalid is the kind of every error in a spec.
var ErrInvalid = errors.New("invalid spec")

// Error is one mistake in a spec. Its text is "FILE:LINE:COL: MESSAGE", the line and a caret under the place.
type Error struct {
	File    string
	Line    int // from 1
	Column  int // from 1, in runes
	Message string
	Hint    string // "did you mean \"steps\"?"
	Excerpt string // the line itself
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *Error) Unwrap() error { return ErrInvalid }

// Options is what the command line adds to a spec.
type Options struct {
	Platforms []platform.Platform // overrides platforms:
	Machine   platform.Platform   // BUILD* variables, and the default platform
	Args      map[string]string   // --build-arg
	Epoch     *int64              // SOURCE_DATE_EPOCH
	Contexts  map[string]string   // --build-context NAME=DIR
}

// Load reads file (a path; its name in messages is as given) with sources from the directory context and returns its graph.
// The error joins every *Error found.
func Load(ctx context.Context, file, contextDir string, o Options) (*graph.Build, error) {
	return nil, errors.New("spec: not built yet")
}

// Schema is the JSON Schema of a spec.
func Schema() []byte { return nil }

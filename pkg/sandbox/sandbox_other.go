//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

var errOS = fmt.Errorf("%w: steps need linux, this is %s: %w", ErrHost, runtime.GOOS, errors.ErrUnsupported)

// Main runs the agent and never returns when this process was started as one; else it does nothing.
func Main() {}

// Pool is a set of warm agents; there are none outside of linux.
type Pool struct{}

// NewPool reports that steps need linux.
func NewPool(context.Context, Options) (*Pool, error) { return nil, errOS }

// Close does nothing.
func (p *Pool) Close() error { return nil }

// Mode is "".
func (p *Pool) Mode() Mode { return "" }

// Ownership is "".
func (p *Pool) Ownership() layer.Ownership { return "" }

// Whole is false.
func (p *Pool) Whole() bool { return false }

// TreesDir is "".
func (p *Pool) TreesDir() string { return "" }

// Notice is "".
func (p *Pool) Notice() string { return "" }

// SnapshotKey is "".
func (p *Pool) SnapshotKey() string { return "" }

// Emulation reports that there is none.
func (p *Pool) Emulation() error { return errOS }

// Emulator is none outside of linux.
func (p *Pool) Emulator() emulate.How { return emulate.None }

// Owners reports that there are none.
func (p *Pool) Owners() error { return errOS }

// Watched reports nothing: nothing runs.
func (p *Pool) Watched(Resources) error { return nil }

// Unpack reports that steps need linux.
func (p *Pool) Unpack(context.Context, string, *os.File, layer.Limits) error { return errOS }

// Remove deletes a tree.
func (p *Pool) Remove(_ context.Context, dir string) error { return os.RemoveAll(dir) }

// Run reports that steps need linux.
func (p *Pool) Run(context.Context, Step) error { return errOS }

// Probe has one rung outside of linux.
func Probe(context.Context, Options) []Rung {
	return []Rung{{Name: "linux", Err: errOS.Error(), Mend: "run steps on a linux machine; everything else works here"}}
}

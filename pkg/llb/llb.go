// Package llb reads BuildKit's LLB, the form in which Dockerfiles and the producers of other languages say what to build,
// into a graph. It does no I/O and runs nothing.
//
// # Invariants
//
//   - Every field of a definition is either in the graph or refused, with the line of the source that it came from.
//   - Equal operations on equal inputs are equal vertices, whatever their metadata says.
//   - Nothing that a definition holds makes reading it panic or take more than memory in proportion to its size (FuzzDecode).
package llb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// The kinds of errors of [Decode]. They are the kinds of an [*Error].
var (
	// ErrInvalid is a definition that is malformed.
	ErrInvalid = errors.New("invalid LLB")
	// ErrUnsupported is a definition that asks for what this program does not do.
	ErrUnsupported = errors.New("not supported")
	// ErrNotAllowed is a step that asks for more than the caller allowed.
	ErrNotAllowed = errors.New("not allowed")
)

// Definition is a graph as BuildKit writes it.
type Definition = pb.Definition

// Options says what the words of a definition mean here.
type Options struct {
	// File names the definition in places that have no better one; "" is "llb".
	File string
	// Platform is that of operations that name none.
	Platform platform.Platform
	// Layout gives the reference of an image by the name that a definition uses for an OCI layout; nil knows none.
	Layout func(name string, d digest.Digest) (ref string, ok bool)
	// Files gives a file of a local context that stands for a URL; nil knows none.
	Files func(url string) (context, file string, ok bool)
	Proxy *graph.Proxy // of steps that name none
	Allow Allow
	// Devices gives the devices of this machine that a step means by a name: VENDOR/CLASS=NAME. nil: there are none.
	Devices func(name string) []Device
	// Warn is told what is left out of a step, and where that stands; nil drops it.
	Warn func(source, text string)
}

// Device is one that a step can be given.
type Device struct {
	Name string // VENDOR/CLASS=NAME
	Free bool   // it need not be allowed
}

// Allow is what steps may ask for beyond a sandbox: buildx's entitlements.
type Allow struct {
	NetworkHost      bool // network.host
	SecurityInsecure bool // security.insecure
	Device           bool // device: all of them
	// Devices are those that are allowed by name: device=NAME.
	Devices []string
}

// device reports whether a device may be given to a step that asked for it.
func (a Allow) device(name string, o Options) bool {
	if a.Device {
		return true
	}
	for _, allowed := range a.Devices {
		if allowed == name || o.Devices != nil && slices.ContainsFunc(o.Devices(allowed), func(d Device) bool { return d.Name == name }) {
			return true
		}
	}
	return false
}

// Error is what is wrong with one operation.
type Error struct {
	Source  string         // "Dockerfile:7", or the file of the options and the operation's digest
	Name    string         // as its producer calls it; may be ""
	Excerpt *graph.Excerpt // nil when the definition says nothing of its source
	Kind    error          // one of the kinds above
	Text    string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Source + ": ")
	if e.Name != "" {
		b.WriteString(e.Name + ": ")
	}
	fmt.Fprintf(&b, "%s: %v", e.Text, e.Kind)
	return b.String()
}

// Lines are the lines in question, as messages show them.
func (e *Error) Lines() *graph.Excerpt { return e.Excerpt }

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

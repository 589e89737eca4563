// Package llb reads BuildKit's LLB, the form in which Dockerfiles and the producers of other languages say what to build,
// into a graph. It does no I/O and runs nothing.
//
// # Invariants
//
//   - Every field of a definition is either in the graph or refused, with the line of the source that it came from.
//   - Equal operations on equal inputs are equal vertices, whatever their metadata says.
package llb

import (
	"errors"

	"github.com/moby/buildkit/solver/pb"
)

// The kinds of errors of [Decode].
var (
	// ErrInvalid is a definition that is malformed.
	ErrInvalid = errors.New("invalid LLB")
	// ErrUnsupported is a definition that asks for what this program does not do.
	ErrUnsupported = errors.New("not supported")
)

// Definition is a graph as BuildKit writes it.
type Definition = pb.Definition

package build

import (
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// The kinds of errors of a build, for callers that import nothing below. An ErrStep
// may at the same time be of the kind of its cause: an image that was not found, a host that cannot.
var (
	ErrSpec = spec.ErrInvalid // a mistake in the spec
	ErrHost = sandbox.ErrHost // no user namespace, no overlay
	ErrStep = solve.ErrStep   // a step failed
)

package build

import (
	"github.com/manifestctl/manifestctl/pkg/accel"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/lock"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// The kinds of errors of a build, for callers that import nothing below. An ErrStep
// may at the same time be of the kind of its cause: an image that was not found, a host that cannot.
var (
	ErrSpec = spec.ErrInvalid // a mistake in the spec
	// ErrDockerfile is a mistake in a Dockerfile, or what was asked for while it was read; ErrInput a context that is none.
	ErrDockerfile = dockerfile.ErrInvalid
	ErrInput      = dockerfile.ErrInput
	// ErrAccelerate is a source of native programs that is none.
	ErrAccelerate = accel.ErrSource
	// ErrLLB is a definition that cannot be read, and ErrUnsupported one that asks for what there is not.
	ErrLLB         = llb.ErrInvalid
	ErrUnsupported = llb.ErrUnsupported
	ErrLock        = lock.ErrInvalid   // a lock file that cannot be read
	ErrNotLocked   = lock.ErrNotLocked // --locked, and an image that is not
	ErrChanged     = lock.ErrChanged   // an image is not what is locked
	ErrNotAllowed  = llb.ErrNotAllowed // a step that needs --allow
	// ErrOtherCache is a --cache-to where something else is.
	ErrOtherCache = remotecache.ErrOther

	ErrHost = sandbox.ErrHost // no user namespace, no overlay
	ErrStep = solve.ErrStep   // a step failed
)

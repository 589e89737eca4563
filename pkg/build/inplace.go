package build

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// While a step in place runs, the files of this machine are an image's: its certificates, its registry credentials, its credential
// helpers. So nothing of this program that may read any runs beside such a step.

// inPlace reports whether steps get the root file system of this container.
func (e *engine) inPlace() bool { return e.o.SandboxMode == sandbox.ModeInPlace }

// restingCache is a cache that is not asked while a step has the root.
type restingCache struct {
	solve.Cache
	worker *local.Worker
}

// Get implements solve.Cache.
func (c restingCache) Get(ctx context.Context, key digest.Digest) (solve.Record, bool) {
	defer c.worker.Reading()()
	return c.Cache.Get(ctx, key)
}

// Put implements solve.Cache.
func (c restingCache) Put(ctx context.Context, key digest.Digest, r solve.Record) error {
	defer c.worker.Reading()()
	return c.Cache.Put(ctx, key, r)
}

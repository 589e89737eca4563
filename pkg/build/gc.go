package build

import (
	"context"
	"errors"
	"os"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Collect frees what nothing in the store reaches. Snapshots hold files of subordinate ids, which only an agent in
// the same user namespace can remove; one is started when there are any.
func Collect(ctx context.Context, st *store.Store, g store.GCOptions, o Options) (_ store.GCReport, err error) {
	var pool *sandbox.Pool
	defer func() {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
	}()
	g.RemoveTree = func(path string) error {
		if pool == nil {
			p, err := sandbox.NewPool(ctx, sandbox.Options{
				Mode: o.SandboxMode, Agents: 1, Path: o.Path, Handlers: emulate.Handlers(ctx, emulateOptions(o)),
			})
			if err != nil { // what this user owns can go without it
				if removeErr := os.RemoveAll(path); removeErr != nil {
					return errors.Join(removeErr, err)
				}
				return nil
			}
			pool = p
		}
		return pool.Remove(ctx, path)
	}
	return st.GC(ctx, g)
}

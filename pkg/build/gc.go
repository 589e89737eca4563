package build

import (
	"context"
	"errors"
	"os"

	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Collect frees what nothing in the store reaches, and of the cache what g says.
func Collect(ctx context.Context, st *store.Store, g store.GCOptions, o Options) (store.GCReport, error) {
	remove, done := o.remover(ctx)
	g.RemoveTree = remove
	r, err := st.GC(ctx, g)
	return r, done(err)
}

// remover returns what removes a snapshot. Snapshots hold files of subordinate ids, which only an agent in the same user
// namespace can remove; one is started when there are any, and ended by done, which joins its error to the one it is given.
func (o Options) remover(ctx context.Context) (remove func(path string) error, done func(error) error) {
	var pool *sandbox.Pool
	done = func(err error) error {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
		return err
	}
	return func(path string) error {
		if pool == nil {
			so := sandboxOptions(ctx, o)
			so.Agents = 1
			p, err := sandbox.NewPool(ctx, so)
			if err != nil { // what this user owns can go without it
				if removeErr := os.RemoveAll(path); removeErr != nil {
					return errors.Join(removeErr, err)
				}
				return nil
			}
			pool = p
		}
		return pool.Remove(ctx, path)
	}, done
}

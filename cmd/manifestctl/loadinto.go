package main

import (
	"context"

	"github.com/manifestctl/manifestctl/pkg/runtimes"
)

// runtime finds what --load names, before anything is built; nil is none.
func (b *buildFlags) runtime(ctx context.Context, e *env) (runtimes.Runtime, error) {
	name := b.load
	switch name {
	case "", "false":
		return nil, nil
	case "true":
		name = ""
	}
	t, err := runtimes.Parse(name)
	if err != nil {
		return nil, err
	}
	return runtimes.Open(ctx, t, runtimes.Env{Getenv: e.getenv})
}

package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
)

// NodeRecord is something that a node keeps, and NodePrune what it is to keep.
type (
	NodeRecord = buildkit.Record
	NodePrune  = buildkit.PruneOptions
)

// NodeRecords lists what a BuildKit node keeps, the largest last.
func NodeRecords(ctx context.Context, n builder.Node, filter []string, age time.Duration) (out []NodeRecord, err error) {
	err = withNode(ctx, n, func(c *buildkit.Node) error {
		out, err = c.Records(ctx, filter, age)
		return err
	})
	return out, err
}

// PruneNode drops what a BuildKit node keeps, and tells of each.
func PruneNode(ctx context.Context, n builder.Node, o NodePrune, dropped func(NodeRecord)) error {
	return withNode(ctx, n, func(c *buildkit.Node) error { return c.Prune(ctx, o, dropped) })
}

// withNode calls f with a connection to a BuildKit node.
func withNode(ctx context.Context, n builder.Node, f func(*buildkit.Node) error) (err error) {
	if n.Unusable != "" {
		return fmt.Errorf("node %s: %w: %s", n.Name, ErrNodeCannot, n.Unusable)
	}
	c, err := buildkit.Dial(ctx, endpoint(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return f(c)
}

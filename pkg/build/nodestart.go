package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
)

const (
	// nodeWait is how long a node may take to answer before a build begins.
	nodeWait = 20 * time.Second
	// nodePoll is the time between two questions to a daemon that is starting.
	nodePoll = 250 * time.Millisecond
)

// start starts the container of a node, as buildx does, and waits for its daemon.
func (f *fleet) start(ctx context.Context, n builder.Node) (conn *buildkit.Node, s buildkit.Status, err error) {
	ev := event.Event{ID: "start " + n.Name, Name: "[internal] start the container of node " + n.Name, Node: n.Name}
	ev.Kind = event.VertexStart
	f.engine.o.Events.Emit(ev)
	defer func() {
		ev.Kind = event.VertexDone
		if err != nil {
			ev.Error = err.Error()
		}
		f.engine.o.Events.Emit(ev)
	}()
	if err := n.Start(ctx); err != nil {
		return nil, s, fmt.Errorf("%w: %w", ErrNodeUnreachable, err)
	}
	err = await(ctx, func(ctx context.Context) (err error) {
		conn, s, err = connect(ctx, n)
		return err
	})
	return conn, s, err
}

// connect is a connection to a node that has answered.
func connect(ctx context.Context, n builder.Node) (*buildkit.Node, buildkit.Status, error) {
	conn, err := buildkit.Dial(ctx, endpoint(n))
	if err != nil {
		return nil, buildkit.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, nodeWait)
	defer cancel()
	s, err := conn.Status(ctx)
	if err != nil {
		return nil, s, errors.Join(err, conn.Close())
	}
	return conn, s, nil
}

// AwaitNode asks a node until it answers, when it is a container: one that was just started takes a moment. Others are asked once.
func AwaitNode(ctx context.Context, n builder.Node) error {
	ask := func(ctx context.Context) error {
		_, err := AskNode(ctx, n)
		return err
	}
	if !n.IsContainer() {
		ctx, cancel := context.WithTimeout(ctx, nodeWait)
		defer cancel()
		return ask(ctx)
	}
	return await(ctx, ask)
}

// await asks until there is an answer, or nodeWait is over.
func await(ctx context.Context, ask func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, nodeWait)
	defer cancel()
	var last error
	for {
		err := ask(waiting)
		if err == nil {
			return nil
		}
		if last == nil || waiting.Err() == nil { // what it said says more than that the time is over
			last = err
		}
		select {
		case <-waiting.Done():
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return last
		case <-time.After(nodePoll):
		}
	}
}

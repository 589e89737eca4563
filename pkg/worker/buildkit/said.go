package buildkit

import (
	"context"

	"github.com/moby/buildkit/client/connhelper"
)

// said is what the command of a connection (docker exec, ssh, ...) says when it ends at once. gRPC reports the broken
// pipe instead, when it could not write its first bytes before the end. "" says nothing about the rest.
func (n *Node) said(ctx context.Context) string {
	helper, err := connhelper.GetConnectionHelper(n.endpoint.URL)
	if err != nil || helper == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	conn, err := helper.ContextDialer(ctx, "")
	if err != nil {
		return ofCommand(err.Error())
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, err = conn.Read(make([]byte, 1)) // a daemon begins to speak, and so waits for nothing
	_ = conn.Close()
	if err == nil || ctx.Err() != nil {
		return ""
	}
	return ofCommand(err.Error())
}

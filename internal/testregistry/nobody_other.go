//go:build !linux

package testregistry

import (
	"context"
	"net"
	"testing"
)

// Nobody is an address of the loopback, HOST:PORT, where nothing listened a moment ago.
func Nobody(tb testing.TB) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	return l.Addr().String()
}

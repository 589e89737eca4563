package testregistry

import (
	"fmt"
	"syscall"
	"testing"
)

// Nobody is an address of the loopback, HOST:PORT, that refuses connections until the test ends: its port is taken, so that
// nobody else can come to listen there, and not listened on.
func Nobody(tb testing.TB) string {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	a, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	in, ok := a.(*syscall.SockaddrInet4)
	if !ok {
		tb.Fatalf("an address of another family: %T", a)
	}
	return fmt.Sprintf("127.0.0.1:%d", in.Port)
}

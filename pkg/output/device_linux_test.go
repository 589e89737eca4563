package output

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fullDevice is a device on which there is no space. Root gets one of its own: what replaces a device instead of
// writing to it must not break the machine's.
func fullDevice(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "/dev/full"
	}
	path := filepath.Join(t.TempDir(), "full")
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))); err != nil {
		t.Skip("no device can be made here:", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no device can be opened here:", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

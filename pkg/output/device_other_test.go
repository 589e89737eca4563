//go:build unix && !linux

package output

import "testing"

func fullDevice(t *testing.T) string {
	t.Helper()
	t.Skip("only Linux has a device that is always full")
	return ""
}

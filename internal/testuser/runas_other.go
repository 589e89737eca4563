//go:build !unix

package testuser

import "testing"

// RunAs cannot change the user here; [Variants] never asks for it.
func RunAs(t *testing.T, v Variant, _ ...string) {
	t.Helper()
	t.Fatalf("no user %s on this system", v.Name)
}

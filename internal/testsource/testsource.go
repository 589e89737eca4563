// Package testsource opens images that tests make. It is for tests only.
package testsource

import (
	"testing"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Open opens the image that is tagged "1" in the OCI layout in dir, until the test ends. What cannot be opened fails the test.
func Open(tb testing.TB, dir string) source.Image {
	tb.Helper()
	r, err := ref.Parse("oci:layout:1")
	if err != nil {
		tb.Fatal(err)
	}
	r.Path = dir
	img, err := (&source.Opener{}).Open(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = img.Close() })
	return img
}

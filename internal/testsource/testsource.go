// Package testsource opens images that tests make. It is for tests only.
package testsource

import (
	"path/filepath"
	"testing"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Open writes content as an OCI layout and opens it, until the test ends. Content that cannot be opened fails the test.
func Open(tb testing.TB, c testimage.Content) source.Image {
	tb.Helper()
	dir := tb.TempDir()
	testimage.WriteLayout(tb, filepath.Join(dir, "x"), map[string]testimage.Content{"1": c})
	r, err := ref.Parse("oci:x:1")
	if err != nil {
		tb.Fatal(err)
	}
	img, err := (&source.Opener{Dir: dir}).Open(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = img.Close() })
	return img
}

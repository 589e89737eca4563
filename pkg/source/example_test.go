package source_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func ExampleResolve() {
	archive, err := os.CreateTemp("", "example-*.tar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(archive.Name())
	idx := testimage.Index(testimage.Image("linux/amd64"), testimage.Image("linux/arm64"))
	if _, err := archive.Write(testimage.OCIArchive(map[string]testimage.Content{"1.0": idx})); err != nil {
		fmt.Println(err)
		return
	}
	archive.Close()

	ctx := context.Background()
	img, err := new(source.Opener).Open(ctx, ref.Ref{Kind: ref.OCIArchive, Path: archive.Name(), Tag: "1.0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer img.Close()
	found, err := source.Resolve(ctx, img, platform.Platform{OS: "linux", Arch: "arm64"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.Platform, len(found.Manifest.Layers))
	_, err = source.Resolve(ctx, img, platform.Platform{OS: "linux", Arch: "s390x"})
	fmt.Println(errors.Is(err, source.ErrNotFound))
	// Output:
	// linux/arm64 0
	// true
}

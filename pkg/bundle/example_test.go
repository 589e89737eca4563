package bundle_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/bundle"
)

func ExampleWrite() {
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	root := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString(manifest), Size: int64(len(manifest)),
		Annotations: map[string]string{ocispec.AnnotationRefName: "1.0"},
	}
	c := bundle.Contents{Roots: []ocispec.Descriptor{root}, Documents: []ocispec.Descriptor{{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}}}
	var archive bytes.Buffer
	err := bundle.Write(context.Background(), &archive, c, func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(manifest)), nil
	})
	size, _ := bundle.Size(c)
	fmt.Println(archive.Len() == int(size), err)
	// Output: true <nil>
}

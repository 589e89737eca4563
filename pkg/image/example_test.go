package image_test

import (
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

func ExampleAssemble() {
	img, err := image.Assemble(image.Input{
		Platform: platform.Platform{OS: "linux", Arch: "arm", Variant: "v7"},
		Patch:    graph.ConfigPatch{Entrypoint: []string{"/hello"}, ExposedPorts: []string{"80"}},
	})
	fmt.Println(string(img.Config), err)
	// Output: {"created":"1970-01-01T00:00:00Z","architecture":"arm","variant":"v7","os":"linux","config":{"ExposedPorts":{"80/tcp":{}},"Entrypoint":["/hello"]},"rootfs":{"type":"layers","diff_ids":[]}} <nil>
}

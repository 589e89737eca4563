package verify_test

import (
	"bytes"
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

func ExampleJudge() {
	data := testimage.Layer(testimage.Exec("usr/bin/app", testexe.Exec("amd64")))
	toc, said, err := facts.Read(context.Background(), bytes.NewReader(data.Tar), facts.Options{})
	if err != nil {
		panic(err)
	}
	found, err := verify.Judge(verify.Input{
		Platform: platform.Platform{OS: "linux", Arch: "arm64"},
		Config: ocispec.Image{
			Config:  ocispec.ImageConfig{Entrypoint: []string{"/usr/bin/app"}},
			History: []ocispec.History{{CreatedBy: "COPY bin/app /usr/bin/ # buildkit"}},
		},
		Layers: []verify.Layer{{TOC: toc, Facts: said}},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(found[0])
	// Output: linux/arm64: /usr/bin/app is x86-64 (from layer 1, COPY bin/app /usr/bin/)
}

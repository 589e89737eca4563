package spec_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

func ExampleLoad() {
	dir, err := os.MkdirTemp("", "spec")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "rootfs.yaml")
	err = os.WriteFile(file, []byte(`version: 1
platforms: [linux/amd64, linux/arm64]
from: scratch
steps:
  - files: [{path: "/etc/${DEB_ARCH}", content: "hi\n"}]
`), 0o600)
	if err != nil {
		panic(err)
	}
	build, err := spec.Load(context.Background(), file, dir, spec.Options{Machine: platform.Platform{OS: "linux", Arch: "amd64"}})
	if err != nil {
		panic(err)
	}
	for _, target := range build.Targets {
		fmt.Println(target.Platform, target.Root.Meta.Name)
	}
	// Output:
	// linux/amd64 FILES /etc/amd64
	// linux/arm64 FILES /etc/arm64
}

// Package consumer holds the module to a promise: a program that only wants to
// read and edit indexes links nothing that builds, runs or stores images.
package consumer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/manifestctl/manifestctl"

const program = `package main

import (
	"fmt"
	"os"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

func main() {
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	idx, err := index.Parse(raw)
	if err != nil {
		panic(err)
	}
	for _, m := range idx.Manifests {
		if m.Platform == nil {
			continue
		}
		p, err := platform.FromOCI(*m.Platform)
		fmt.Println(p, m.Digest, err)
	}
}
`

// heavy is what such a program must not link.
var heavy = []string{
	module + "/pkg/store", module + "/pkg/registry", module + "/pkg/sandbox", module + "/pkg/layer", module + "/pkg/build",
	"github.com/moby/buildkit", "github.com/google/go-containerregistry", "github.com/klauspost/compress",
	"github.com/spf13/cobra", "net/http",
}

func TestConsumer(t *testing.T) {
	dir := consumerModule(t)
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Run(system, func(t *testing.T) {
			gocmd(t, dir, system, "build", "-o", os.DevNull, ".")
			for _, dep := range strings.Fields(gocmd(t, dir, system, "list", "-deps", ".")) {
				for _, h := range heavy {
					assert.False(t, dep == h || strings.HasPrefix(dep, h+"/"), "the consumer links %s", dep)
				}
			}
		})
	}
}

// consumerModule writes a module that requires this one where it lies, with the same versions of everything else, so
// that nothing has to be resolved.
func consumerModule(t *testing.T) string {
	t.Helper()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	gomod, err := os.ReadFile(filepath.Join(repo, "go.mod"))
	require.NoError(t, err)
	gosum, err := os.ReadFile(filepath.Join(repo, "go.sum"))
	require.NoError(t, err)

	text := strings.Replace(string(gomod), "module "+module, "module example.com/consumer", 1)
	require.Contains(t, text, "module example.com/consumer")
	text += "\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + filepath.ToSlash(repo) + "\n"

	dir := t.TempDir()
	for name, data := range map[string]string{"go.mod": text, "go.sum": string(gosum), "main.go": program} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	return dir
}

// gocmd runs the go command for another system and returns its stdout.
func gocmd(t *testing.T, dir, system string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "go %s: %s", strings.Join(args, " "), errs.String())
	return string(out)
}

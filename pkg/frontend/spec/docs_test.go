package spec_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// repo is a file of the repository.
func repo(name string) string { return filepath.Join("..", "..", "..", filepath.FromSlash(name)) }

// TestDocs loads every example of docs/spec.md; what a fragment leaves out is added.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile(repo("docs/spec.md"))
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{
		"dist/hello-amd64", "dist/hello-arm64", "dist/hello-arm", "dist/tool-amd64", "ping", "site/index.html", "conf/a/b.conf", "rootfs-amd64.tar.zst", "src/Makefile",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	line, examples := 1, 0
	for i, block := range strings.Split(string(doc), "```") {
		start := line
		line += strings.Count(block, "\n")
		text, ok := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !ok {
			continue
		}
		examples++
		t.Run(fmt.Sprintf("line %d", start), func(t *testing.T) {
			if !strings.Contains(text, "version: 1\n") {
				text = "version: 1\n" + text
			}
			if !strings.Contains("\n"+text, "\nfrom:") {
				text += "from: scratch\n"
			}
			file := filepath.Join(t.TempDir(), "rootfs.yaml")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			b, err := spec.Load(context.Background(), file, dir, spec.Options{Machine: platform.Platform{OS: "linux", Arch: "amd64"}})
			require.NoError(t, err)
			for _, w := range b.Warnings {
				assert.Contains(t, w, "is declared before", "an unexpected warning")
			}
		})
	}
	assert.Greater(t, examples, 15)
}

// Every key, variable and type is in the reference.
func TestDocsAreComplete(t *testing.T) {
	doc, err := os.ReadFile(repo("docs/spec.md"))
	require.NoError(t, err)
	for _, key := range bytes.FieldsFunc(spec.Schema(), func(r rune) bool { return r == '\n' }) {
		name, _, ok := strings.Cut(strings.TrimSpace(string(key)), `": {`)
		name = strings.TrimPrefix(name, `"`)
		if !ok || strings.HasPrefix(name, "$") || strings.HasSuffix(name, "roperties") || strings.HasSuffix(name, "Names") || name == "items" || name == "dependentRequired" {
			continue
		}
		assert.Contains(t, string(doc), name)
	}
}

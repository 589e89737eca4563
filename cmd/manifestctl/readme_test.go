package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadme holds the README to its scripts: every command line and every spec in it is run by one.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join("testdata", "script", "readme.txtar"))
	require.NoError(t, err)
	ran := strings.ReplaceAll(string(script), "$REGISTRY", "localhost:5000")

	commands, specs := 0, 0
	for _, block := range blocks(string(readme)) {
		if spec, ok := strings.CutPrefix(block, "yaml\n"); ok {
			specs++
			assert.Contains(t, ran, "-- rootfs.yaml --\n"+spec)
			continue
		}
		for line := range strings.SplitSeq(block, "\n") {
			command, _, _ := strings.Cut(line, " #")
			command = strings.TrimSpace(command)
			if !strings.HasPrefix(command, "manifestctl ") || strings.HasSuffix(command, "&") {
				continue
			}
			commands++
			assert.Contains(t, ran, "\n"+command+"\n", "no script runs it")
		}
	}
	assert.Positive(t, commands)
	assert.Positive(t, specs)
}

// blocks returns the fenced blocks of a Markdown text, each beginning with its language.
func blocks(text string) []string {
	parts := strings.Split(text, "```")
	var out []string
	for i := 1; i < len(parts); i += 2 {
		out = append(out, parts[i])
	}
	return out
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWalks holds pages of docs to their scripts: every command line in them is run by one.
func TestWalks(t *testing.T) {
	for page, script := range map[string]string{"airgap.md": "airgap.txtar", "sync.md": "sync.txtar"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
			require.NoError(t, err)
			ran, err := os.ReadFile(filepath.Join("testdata", "script", script))
			require.NoError(t, err)
			commands := 0
			for _, block := range blocks(string(text)) {
				for line := range strings.SplitSeq(block, "\n") {
					if command := strings.TrimSpace(line); strings.HasPrefix(command, "manifestctl ") || strings.HasPrefix(command, "skopeo ") {
						commands++
						assert.Contains(t, string(ran), command+"\n", "no script runs it")
					}
				}
			}
			assert.Positive(t, commands)
		})
	}
}

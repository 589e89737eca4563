package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSecurityClaims: every test that docs/security.md names for a claim exists.
func TestSecurityClaims(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	require.NoError(t, err)
	var source strings.Builder
	for _, pattern := range []string{"pkg/*/*_test.go", "pkg/*/*/*_test.go", "internal/*/*_test.go", "cmd/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		require.NoError(t, err)
		for _, f := range files {
			data, err := os.ReadFile(f)
			require.NoError(t, err)
			source.Write(data)
		}
	}
	names := regexp.MustCompile("`(Test[A-Za-z0-9_]+)(?:/([^`]+))?`").FindAllStringSubmatch(string(text), -1)
	assert.Greater(t, len(names), 15)
	for _, n := range names {
		assert.Contains(t, source.String(), "func "+n[1]+"(t *testing.T)", n[0])
		sub := strings.ReplaceAll(n[2], "_", " ")
		if sub == "" || n[1] == "TestScript" {
			continue
		}
		assert.Contains(t, source.String(), `"`+sub+`"`, n[0])
	}
}

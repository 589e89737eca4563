package spec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// FuzzLoad: whatever the text, Load ends, panics nowhere, and each of its errors has a place in the text.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	require.NoError(f, err)
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		require.NoError(f, err)
		for _, one := range a.Files {
			if one.Name == "rootfs.yaml" {
				f.Add(string(one.Data))
			}
		}
	}
	for _, s := range []string{"[", "{", "- ", "? ", "a: ", "&a ", "!!a ", "*a ", "{a: ", "- a: ", "> ", "%", ": ", "\"", "'", "a: |\n b\n", "---\n"} {
		f.Add(strings.Repeat(s, 300))
	}
	dir := f.TempDir()
	require.NoError(f, os.MkdirAll(filepath.Join(dir, "d/e"), 0o755))
	for _, name := range []string{"a", "d/f", "d/e/x.conf", "t.tar"} {
		require.NoError(f, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	o := Options{
		Machine:   platform.Platform{OS: "linux", Arch: "amd64"},
		Platforms: []platform.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm", Variant: "v5"}},
	}
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		b, err := load(context.Background(), "rootfs.yaml", []byte(text), dir, o)
		require.Less(t, time.Since(start), 20*time.Second) // of a machine that does more than this
		if err == nil {
			require.NotNil(t, b)
			require.Len(t, b.Targets, 2)
			return
		}
		require.ErrorIs(t, err, ErrInvalid)
		joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the outermost one is meant
		require.True(t, ok)
		lines := strings.Count(text, "\n") + 1
		last := 0
		for _, one := range joined.Unwrap() {
			var e *Error
			require.True(t, errors.As(one, &e), "%T", one)
			require.NotEmpty(t, e.Message)
			require.Positive(t, e.Column)
			require.True(t, e.Line >= 1 && e.Line <= lines, "line %d of %d", e.Line, lines)
			require.GreaterOrEqual(t, e.Line, last, "not in order")
			last = e.Line
			require.NotContains(t, e.Error(), "\x1b")
		}
	})
}

// FuzzGlob compares the matcher with its definition.
func FuzzGlob(f *testing.F) {
	f.Add("**/a/*b/**", "a/b/ab/a")
	f.Add("*/**/c", "a/c")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, n := strings.Split(pattern, "/"), strings.Split(name, "/")
		if len(p) > 6 || len(n) > 8 {
			return
		}
		require.Equal(t, defined(p, n), matchGlob(p, n))
		for i := 1; i < len(n); i++ {
			if matchGlob(p, n) {
				require.True(t, mayMatchBelow(p, n[:i]), "a directory on the way to a match is not entered")
			}
		}
	})
}

// defined is the definition of a pattern: ** is any number of parts, but at the end at least one.
func defined(p, n []string) bool {
	switch {
	case len(p) == 0:
		return len(n) == 0
	case p[0] == "**" && len(p) == 1:
		return len(n) > 0
	case p[0] == "**":
		for i := 0; i <= len(n); i++ {
			if defined(p[1:], n[i:]) {
				return true
			}
		}
		return false
	}
	return len(n) > 0 && matchPart(p[0], n[0]) && defined(p[1:], n[1:])
}

package lock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/lock"
)

var one, two, three = digest.FromString("1"), digest.FromString("2"), digest.FromString("3")

func TestSetAndRead(t *testing.T) {
	var f lock.File
	f.Set("b", one, "linux/arm64", two)
	f.Set("a", one, "linux/amd64", two)
	f.Set("a", one, "linux/arm64", three)
	b, err := f.Bytes()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, lock.Name), b, 0o600))
	again, err := lock.Read(dir)
	require.NoError(t, err)
	assert.Equal(t, f.Images, again.Images)
	assert.Len(t, again.Images["a"].Platforms, 2)

	again.Set("a", two, "linux/amd64", three)
	assert.Equal(t, map[string]digest.Digest{"linux/amd64": three}, again.Images["a"].Platforms, "of another index nothing is known")
}

func TestCheck(t *testing.T) {
	var f lock.File
	f.Set("a", one, "linux/amd64", two)
	require.NoError(t, f.Check("a", "linux/amd64", two))
	require.NoError(t, f.Check("a", "linux/arm64", three), "not locked")
	require.NoError(t, f.Check("b", "linux/amd64", three))
	require.ErrorIs(t, f.Check("a", "linux/amd64", three), lock.ErrChanged)
}

func TestMerge(t *testing.T) {
	var old, found lock.File
	old.Set("kept", one, "linux/amd64", two)
	old.Set("moved", one, "linux/amd64", two)
	old.Set("same", one, "linux/amd64", two)
	old.Set("more", one, "linux/amd64", two)
	found.Set("moved", two, "linux/arm64", two)
	found.Set("same", one, "linux/amd64", two)
	found.Set("more", one, "linux/arm64", two)
	found.Set("new", three, "linux/amd64", two)
	before, err := old.Bytes()
	require.NoError(t, err)
	merged, changes := lock.Merge(&old, &found)
	assert.Equal(t, []string{
		"more for more platforms", "moved " + one.String() + " -> " + two.String(), "new " + three.String(),
	}, changes)
	assert.Len(t, merged.Images, 5)
	assert.Len(t, merged.Images["more"].Platforms, 2)
	assert.Len(t, merged.Images["moved"].Platforms, 1)
	after, err := old.Bytes()
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
}

func TestNoFileIsEmpty(t *testing.T) {
	f, err := lock.Read(t.TempDir())
	require.NoError(t, err)
	assert.Empty(t, f.Images)
}

func TestInvalid(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":        "",
		"no JSON":        "version: 1",
		"another":        `{"version":2}`,
		"unknown field":  `{"version":1,"images":{},"more":1}`,
		"no digest":      `{"version":1,"images":{"a":{"digest":"x"}}}`,
		"bad platform":   `{"version":1,"images":{"a":{"digest":"` + one.String() + `","platforms":{"p":"y"}}}}`,
		"something more": `{"version":1} {}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lock.Parse([]byte(text))
			require.ErrorIs(t, err, lock.ErrInvalid)
		})
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte(`{"version":1,"images":{"a":{"digest":"` + one.String() + `","platforms":{"linux/amd64":"` + two.String() + `"}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := lock.Parse(b)
		if err != nil {
			return
		}
		written, err := file.Bytes()
		require.NoError(t, err)
		again, err := lock.Parse(written)
		require.NoError(t, err)
		second, err := again.Bytes()
		require.NoError(t, err)
		assert.Equal(t, string(written), string(second))
	})
}

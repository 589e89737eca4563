package build_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestNoCacheDropsCacheMounts builds steps that count in cache mounts how often they ran, as BuildKit has them count.
func TestNoCacheDropsCacheMounts(t *testing.T) {
	program, ok := busybox()
	if !ok {
		if os.Getenv("CI") == "true" {
			t.Fatal("this machine lacks Debian's package busybox-static")
		}
		t.Skip("this machine lacks Debian's package busybox-static: make deps")
	}
	dir := t.TempDir()
	l := testimage.Layer(testimage.Dir("bin"), testimage.Exec("bin/busybox", program), testimage.Symlink("bin/sh", "busybox"))
	testimage.WriteLayout(t, filepath.Join(dir, "base"), map[string]testimage.Content{"latest": testimage.Image("linux/amd64", l)})
	const count = " echo x >> /c/n; /bin/busybox wc -l < /c/n > /"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM base AS one\n"+
		"RUN --mount=type=cache,target=/c,id=one"+count+"one\n"+
		"FROM base AS two\nARG V\n"+
		"RUN --mount=type=cache,target=/c,id=two"+count+"two\n"+
		"FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"), 0o644))
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	for i, tc := range []struct {
		value    string
		noCache  bool
		filter   []string
		one, two string
	}{
		{value: "1", one: "1\n", two: "1\n"},
		{value: "2", one: "1\n", two: "2\n"}, // one is a hit
		{value: "3", filter: []string{"one"}, one: "1\n", two: "3\n"},
		{value: "3", noCache: true, one: "1\n", two: "1\n"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		dest, err := output.Parse("type=local,dest=" + out)
		require.NoError(t, err)
		_, err = build.Run(t.Context(), st, build.Request{
			File: filepath.Join(dir, "Dockerfile"), ContextDir: dir, Dockerfile: &build.Dockerfile{NoCacheFilter: tc.filter},
			Args: map[string]string{"V": tc.value}, Outputs: []output.Spec{dest},
			Contexts: map[string]string{"base": "oci-layout://" + filepath.Join(dir, "base") + ":latest"},
		}, build.Options{Path: os.Getenv("PATH"), Verify: build.VerifyOff, NoCache: tc.noCache})
		require.NoError(t, err)
		for name, want := range map[string]string{"one": tc.one, "two": tc.two} {
			got, err := os.ReadFile(filepath.Join(out, name))
			require.NoError(t, err)
			assert.Equal(t, want, string(got), "build %d, %s", i, name)
		}
	}
}

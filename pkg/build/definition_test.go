package build_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	bk "github.com/moby/buildkit/client/llb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestDefinitionOfADirectory builds definitions whose result has a directory of this machine as a layer, without any COPY.
func TestDefinitionOfADirectory(t *testing.T) {
	context := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(context, "a"), []byte("of the context"), 0o640))
	made := bk.Scratch().File(bk.Mkfile("/b", 0o600, []byte("made")))
	for name, tc := range map[string]struct {
		state bk.State
		want  map[string]string
	}{
		"alone":  {bk.Local("context"), map[string]string{"a": "of the context"}},
		"merged": {bk.Merge([]bk.State{bk.Local("context"), made}), map[string]string{"a": "of the context", "b": "made"}},
		"below":  {bk.Local("context").File(bk.Mkfile("/b", 0o600, []byte("on it"))), map[string]string{"a": "of the context", "b": "on it"}},
		"diff":   {bk.Diff(bk.Scratch(), bk.Local("context")), map[string]string{"a": "of the context"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			require.NoError(t, buildDefinition(t, tc.state, context, "type=local,dest="+out))
			entries, err := os.ReadDir(out)
			require.NoError(t, err)
			got := map[string]string{}
			for _, e := range entries {
				data, err := os.ReadFile(filepath.Join(out, e.Name()))
				require.NoError(t, err)
				got[e.Name()] = string(data)
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

// buildDefinition builds a definition in a store of its own.
func buildDefinition(t *testing.T, s bk.State, dir, dest string) error {
	t.Helper()
	def, err := s.Marshal(t.Context(), bk.LinuxAmd64)
	require.NoError(t, err)
	var raw bytes.Buffer
	require.NoError(t, bk.WriteTo(def, &raw))
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	out, err := output.Parse(dest)
	require.NoError(t, err)
	_, err = build.Run(t.Context(), st, build.Request{
		ContextDir: dir, LLB: &raw, Dockerfile: &build.Dockerfile{}, Outputs: []output.Spec{out},
		Platforms: []platform.Platform{{OS: "linux", Arch: "amd64"}},
	}, build.Options{Path: os.Getenv("PATH")})
	return err
}

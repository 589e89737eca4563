package output

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

func TestDockerArchive(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	p := productOf(t, []string{"hello:1.0", "r.example:5000/a/b:x", "r.example:5000/a/b:y"},
		testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/amd64", base("x").Gzip(), testimage.Layer(testimage.File("y", "")).Gzip()))
	require.NoError(t, open(t, env, "type=docker,dest=out.tar").Write(t.Context(), p))
	data, err := os.ReadFile(filepath.Join(env.Dir, "out.tar"))
	require.NoError(t, err)
	members := untar(t, data)
	requireBlobs(t, members, p)

	var items []struct {
		Config           string
		RepoTags, Layers []string
	}
	require.NoError(t, json.Unmarshal(members["manifest.json"], &items))
	require.Len(t, items, 1)
	assert.Equal(t, p.Images[0].Config, members[items[0].Config])
	assert.Equal(t, []string{"hello:1.0", "r.example:5000/a/b:x", "r.example:5000/a/b:y"}, items[0].RepoTags)
	require.Len(t, items[0].Layers, 2)
	for _, l := range items[0].Layers {
		assert.Contains(t, members, l)
	}
	var repositories map[string]map[string]string
	require.NoError(t, json.Unmarshal(members["repositories"], &repositories))
	assert.Contains(t, repositories["hello"], "1.0")
	assert.Len(t, repositories["r.example:5000/a/b"], 2)
}

func TestDockerArchiveWithoutAName(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	require.NoError(t, open(t, env, "type=docker,dest=out.tar").Write(t.Context(), productOf(t, nil, amd64())))
	data, err := os.ReadFile(filepath.Join(env.Dir, "out.tar"))
	require.NoError(t, err)
	members := untar(t, data)
	assert.NotContains(t, members, "repositories")
	assert.Contains(t, string(members["manifest.json"]), `"RepoTags":null`)
}

func TestPodmanLoads(t *testing.T) {
	podman := tool(t, "podman")
	if os.Geteuid() != 0 {
		t.Skip("podman as an ordinary user needs subuid ranges and a login session")
	}
	env := Env{Dir: t.TempDir()}
	p := productOf(t, []string{"localhost/hello:1.0"}, amd64())
	require.NoError(t, open(t, env, "type=docker,dest=out.tar").Write(t.Context(), p))
	podmanArgs := func(args ...string) []string {
		return append([]string{
			"--root", filepath.Join(env.Dir, "root"), "--runroot", filepath.Join(env.Dir, "run"),
			"--storage-driver", "vfs", "--tmpdir", filepath.Join(env.Dir, "tmp"),
		}, args...)
	}
	run(t, podman, podmanArgs("load", "-q", "-i", filepath.Join(env.Dir, "out.tar"))...)
	id := strings.TrimSpace(run(t, podman, podmanArgs("image", "inspect", "--format", "{{.Id}}", "localhost/hello:1.0")...))
	assert.Equal(t, p.Images[0].CfgDesc.Digest.Encoded(), id)
}

package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
)

func cacheOf(t *testing.T, text string) nodeCache {
	t.Helper()
	s, err := remotecache.ParseTo(text)
	require.NoError(t, err)
	return nodeCache{Spec: s}
}

// TestNodeCachePlaces: one platform's records are not those of another, and what is not there is not asked for.
func TestNodeCachePlaces(t *testing.T) {
	arm, err := platform.Parse("linux/arm64")
	require.NoError(t, err)
	dir := t.TempDir()
	insecure := cacheOf(t, "type=registry,ref=r.example/cache:c,mode=max,ignore-error=true")
	insecure.insecure = true
	local := cacheOf(t, "type=local,dest="+dir)
	f := &fleet{from: []nodeCache{insecure, local}, to: []nodeCache{insecure, local}, choices: map[platform.Platform][]*member{arm: nil}}
	own := filepath.Join(dir, "linux-arm64")
	from, to := f.caches(arm)
	registryPlace := func(tag string, more map[string]string) buildkit.Cache {
		more["ref"], more["registry.insecure"] = "r.example/cache:"+tag, "true"
		return buildkit.Cache{Type: "registry", Attrs: more}
	}
	assert.Equal(t, []buildkit.Cache{registryPlace("c-linux-arm64", map[string]string{}), registryPlace("c", map[string]string{})}, from)
	assert.Equal(t, []buildkit.Cache{
		registryPlace("c-linux-arm64", map[string]string{"mode": "max", "ignore-error": "true", "oci-mediatypes": "true"}),
		{Type: "local", Attrs: map[string]string{"dest": own, "oci-mediatypes": "true"}},
	}, to)
	assert.Equal(t, []string{own}, f.cacheDirs(), "written to, and not read from")

	require.NoError(t, os.Mkdir(own, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own, "index.json"), []byte("{}"), 0o600))
	from, _ = f.caches(arm)
	assert.Equal(t, buildkit.Cache{Type: "local", Attrs: map[string]string{"src": own}}, from[2])
}

// TestUnknownToNodes: what a node cannot be told in a build is said, with the lines of its configuration.
func TestUnknownToNodes(t *testing.T) {
	c := cacheOf(t, "type=registry,ref=r.example:5000/cache:c")
	for name, tc := range map[string]struct {
		route     registry.Route
		elsewhere bool
		want      []string
	}{
		"its name":            {registry.Route{}, true, nil},
		"http":                {registry.Route{Plain: true}, true, nil},
		"no verification":     {registry.Route{Insecure: true}, true, nil},
		"another place":       {registry.Route{Moved: "s.example/x"}, true, nil},
		"certificates":        {registry.Route{Trusted: true}, true, []string{"buildkitd.toml", `[registry."r.example:5000"]`, `  ca = ["/etc/buildkit/certs/r.example_5000.crt"]`}},
		"a mirror":            {registry.Route{Mirrors: []registry.Mirror{{Name: "m.example/r"}}}, true, []string{`  mirrors = ["m.example/r"]`}},
		"loopback, same":      {registry.Route{Loopback: true}, false, nil},
		"loopback, elsewhere": {registry.Route{Loopback: true}, true, []string{"r.example:5000", "means the same everywhere"}},
	} {
		got := unknownToNodes(c, tc.route, tc.elsewhere)
		if tc.want == nil {
			assert.Empty(t, got, name)
		}
		for _, text := range tc.want {
			assert.Contains(t, got, text, name)
		}
	}
	r, err := ref.Parse("r.example/cache:c")
	require.NoError(t, err)
	to, err := moved(r, registry.Route{Moved: "s.example/x/cache"})
	require.NoError(t, err)
	assert.Equal(t, "s.example/x/cache:c", to.String())
}

// TestElsewhere: a node on a socket or the loopback is on this machine, as far as it can be known.
func TestElsewhere(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"unix:///s": false, "tcp://127.0.0.1:1": false, "tcp://localhost:1": false, "tcp://[::1]:1": false,
		"tcp://amd.example:1": true, "ssh://127.0.0.1": true, "docker-container://x": true, "kube-pod://x": true,
	} {
		m := &member{conn: new(buildkit.Node), candidate: builder.Candidate{Node: builder.Node{Endpoint: endpoint}}}
		assert.Equal(t, want, (&fleet{members: []*member{m}}).elsewhere(), endpoint)
	}
	assert.False(t, (&fleet{members: []*member{{candidate: builder.Candidate{Node: builder.Node{Endpoint: builder.Local}}}}}).elsewhere())
}

package builder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var (
	amd64 = platform.Platform{OS: "linux", Arch: "amd64"}
	arm64 = platform.Platform{OS: "linux", Arch: "arm64"}
	s390x = platform.Platform{OS: "linux", Arch: "s390x"}
)

func config(t *testing.T) builder.Config {
	t.Helper()
	dir := t.TempDir()
	return builder.Config{Dir: filepath.Join(dir, "ours"), Buildx: filepath.Join(dir, "buildx")}
}

func TestCreateAppendLeaveRemove(t *testing.T) {
	c := config(t)
	b, err := c.Create(builder.Change{Name: "farm", Endpoint: "tcp://a:1", Options: builder.Options{CACert: "/ca"}})
	require.NoError(t, err)
	assert.Equal(t, "remote", b.Driver)
	_, err = c.Create(builder.Change{Name: "farm", Endpoint: "tcp://b:1"})
	require.ErrorIs(t, err, builder.ErrExists)
	_, err = c.Create(builder.Change{Name: "farm", Append: true, Endpoint: "ssh://me@arm", Platforms: []platform.Platform{arm64}})
	require.NoError(t, err)
	_, err = c.Create(builder.Change{Name: "farm", Append: true, Driver: "local", Node: "here"})
	require.NoError(t, err)

	b, err = c.Get("farm")
	require.NoError(t, err)
	assert.True(t, b.Remote())
	require.Len(t, b.Nodes, 3)
	assert.Equal(t, "farm0", b.Nodes[0].Name)
	assert.Equal(t, "/ca", b.Nodes[0].Options.CACert)
	assert.Equal(t, []platform.Platform{arm64}, b.Nodes[1].Platforms)
	assert.True(t, b.Nodes[2].IsLocal())

	_, err = c.Create(builder.Change{Name: "farm", Node: "farm1", Endpoint: "unix:///run/x.sock"})
	require.NoError(t, err)
	_, err = c.Leave("farm", "farm0")
	require.NoError(t, err)
	_, err = c.Leave("farm", "farm0")
	require.ErrorIs(t, err, builder.ErrNotFound)
	_, err = c.Leave("farm", "here")
	require.NoError(t, err)
	_, err = c.Leave("farm", "farm1")
	require.ErrorIs(t, err, builder.ErrInvalid, "the last node stays")
	b, err = c.Get("farm")
	require.NoError(t, err)
	assert.Equal(t, "unix:///run/x.sock", b.Nodes[0].Endpoint)

	require.NoError(t, c.Use("farm"))
	require.NoError(t, c.Remove("farm"))
	current, err := c.Current()
	require.NoError(t, err)
	assert.Equal(t, builder.Local, current, "what is removed is not in use")
	require.ErrorIs(t, c.Remove("farm"), builder.ErrNotFound)
	require.ErrorIs(t, c.Use("farm"), builder.ErrNotFound)
	require.ErrorIs(t, c.Remove("local"), builder.ErrInvalid)
}

func TestRefused(t *testing.T) {
	for name, ch := range map[string]builder.Change{
		"scheme":              {Endpoint: "http://x"},
		"no port":             {Endpoint: "tcp://x"},
		"no path":             {Endpoint: "unix://"},
		"no container":        {Endpoint: "docker-container://"},
		"certificates of ssh": {Endpoint: "ssh://x", Options: builder.Options{CACert: "/ca"}},
		"cert without key":    {Endpoint: "tcp://x:1", Options: builder.Options{Cert: "/c"}},
		"remote alone":        {Driver: "remote"},
		"local with endpoint": {Driver: "local", Endpoint: "tcp://x:1"},
		"docker-container":    {Driver: "docker-container"},
		"unknown driver":      {Driver: "x"},
		"name":                {Name: "../x", Endpoint: "tcp://x:1"},
		"node":                {Name: "x", Node: "a/b", Endpoint: "tcp://x:1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config(t).Create(ch)
			require.ErrorIs(t, err, builder.ErrInvalid)
		})
	}
}

// TestManyWriters: every node that was added is there, whoever else was writing.
func TestManyWriters(t *testing.T) {
	c := config(t)
	_, err := c.Create(builder.Change{Name: "farm", Endpoint: "tcp://x:1"})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := c.Create(builder.Change{Name: "farm", Append: true, Endpoint: fmt.Sprintf("tcp://x:%d", 10+i)})
			assert.NoError(t, err)
			b, err := c.Get("farm")
			assert.NoError(t, err)
			assert.NotEmpty(t, b.Nodes)
		})
	}
	wg.Wait()
	b, err := c.Get("farm")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, n := range b.Nodes {
		names[n.Name] = true
	}
	assert.Len(t, names, 21)
	left, err := filepath.Glob(filepath.Join(c.Dir, "builders", ".new-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestBuildersOfBuildx(t *testing.T) {
	c := config(t)
	dir := filepath.Join(c.Buildx, "instances")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, text := range map[string]string{
		"arms": `{"Name":"arms","Driver":"remote","Nodes":[{"Name":"arms0","Endpoint":"tcp://arm:1234","Platforms":[{"architecture":"arm64","os":"linux"}],
			"DriverOpts":{"cacert":"/ca.pem","cert":"/c.pem","key":"/k.pem"}}]}`,
		"box":  `{"Name":"box","Driver":"docker-container","Nodes":[{"Name":"box0","Endpoint":"unix:///var/run/docker.sock","Platforms":null},{"Name":"box1","Endpoint":"far"},{"Name":"box2","Endpoint":"default"}]}`,
		"pods": `{"Name":"pods","Driver":"kubernetes","Nodes":[{"Name":"pods0","Endpoint":"kubernetes:///pods?deployment=&kubeconfig="}]}`,
		"bad":  `{`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	list, err := c.List()
	require.ErrorIs(t, err, builder.ErrInvalid, "one cannot be read, the others are listed")
	require.Len(t, list, 4)

	b, err := c.Get("arms")
	require.NoError(t, err)
	assert.Equal(t, []platform.Platform{arm64}, b.Nodes[0].Platforms)
	assert.Equal(t, builder.Options{CACert: "/ca.pem", Cert: "/c.pem", Key: "/k.pem"}, b.Nodes[0].Options)
	assert.Empty(t, b.Nodes[0].Unusable)
	b, err = c.Get("box")
	require.NoError(t, err)
	for i, want := range []string{"box0", "box1?context=far", "box2"} {
		assert.Equal(t, "docker-container://buildx_buildkit_"+want, b.Nodes[i].Endpoint)
	}
	b, err = c.Get("pods")
	require.NoError(t, err)
	assert.NotEmpty(t, b.Nodes[0].Unusable)

	require.NoError(t, c.Use("arms"))
	require.ErrorIs(t, c.Remove("arms"), builder.ErrInvalid, "buildx's are never changed")
	_, err = c.Create(builder.Change{Name: "arms", Append: true, Endpoint: "tcp://x:1"})
	require.ErrorIs(t, err, builder.ErrExists)
}

func TestFileThatWasEdited(t *testing.T) {
	c := config(t)
	require.NoError(t, os.MkdirAll(filepath.Join(c.Dir, "builders"), 0o755))
	for name, text := range map[string]string{
		"json": `{`, "nodes": `{"nodes":[]}`, "endpoint": `{"nodes":[{"name":"x","endpoint":"ftp://x"}]}`,
		"platform": `{"nodes":[{"name":"x","endpoint":"tcp://x:1","platforms":["linux/z80"]}]}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(c.Dir, "builders", name+".json"), []byte(text), 0o600))
		_, err := c.Get(name)
		require.Error(t, err, name)
		require.NoError(t, c.Remove(name), "it can be removed")
	}
}

func TestChoose(t *testing.T) {
	node := func(name string, declared, native, emulated []platform.Platform, load int) builder.Candidate {
		return builder.Candidate{Node: builder.Node{Name: name, Platforms: declared}, Native: native, Emulated: emulated, Load: load}
	}
	list := func(ps ...platform.Platform) []platform.Platform { return ps }
	for name, tc := range map[string]struct {
		platforms  []platform.Platform
		candidates []builder.Candidate
		want       [][]int
	}{
		"native before emulated": {
			list(arm64),
			[]builder.Candidate{node("x86", nil, list(amd64), list(arm64), 0), node("arm", nil, list(arm64), list(amd64), 5)},
			[][]int{{1, 0}},
		},
		"declared before emulated": {
			list(arm64),
			[]builder.Candidate{node("a", nil, list(amd64), list(arm64), 0), node("b", list(arm64), list(amd64), nil, 0)},
			[][]int{{1, 0}},
		},
		"the least loaded": {
			list(amd64),
			[]builder.Candidate{node("a", nil, list(amd64), nil, 2), node("b", nil, list(amd64), nil, 1)},
			[][]int{{1, 0}},
		},
		"one that was declared is a load for others": {
			list(amd64, arm64),
			[]builder.Candidate{node("a", list(arm64), list(amd64), nil, 0), node("b", nil, list(amd64), nil, 0)},
			[][]int{{1, 0}, {0}},
		},
		"platforms of one build are shared out": {
			list(amd64, platform.Platform{OS: "linux", Arch: "386"}),
			[]builder.Candidate{
				node("a", nil, list(amd64, platform.Platform{OS: "linux", Arch: "386"}), nil, 0),
				node("b", nil, list(amd64, platform.Platform{OS: "linux", Arch: "386"}), nil, 0),
			},
			[][]int{{0, 1}, {1, 0}},
		},
		"nobody": {
			list(s390x), []builder.Candidate{node("a", nil, list(amd64), nil, 0)}, [][]int{nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, c := range builder.Choose(tc.platforms, tc.candidates) {
				assert.Equal(t, tc.platforms[i], c.Platform)
				assert.Equal(t, tc.want[i], c.Nodes)
			}
		})
	}
}

func FuzzBuilderFiles(f *testing.F) {
	f.Add([]byte(`{"nodes":[{"name":"x","endpoint":"tcp://x:1","platforms":["linux/arm64"]}]}`))
	f.Add([]byte(`{"Driver":"remote","Nodes":[{"Name":"arms0","Endpoint":"tcp://arm:1234","Platforms":[{"architecture":"arm64","os":"linux"}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		c := builder.Config{Dir: dir, Buildx: dir}
		for _, at := range []string{"builders/x.json", "instances/y"} {
			path := filepath.Join(dir, at)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, raw, 0o600))
		}
		for _, name := range []string{"x", "y"} {
			if b, err := c.Get(name); err == nil {
				assert.NotEmpty(t, b.Nodes)
			}
		}
	})
}

package llb_test

import (
	"strconv"
	"testing"

	bk "github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// sources stand for images: all as if they were in a registry.
func sources(v *graph.Vertex) (llb.Source, bool, error) {
	op, ok := v.Op.(graph.Image)
	if !ok {
		return llb.Source{}, false, nil
	}
	s := llb.Source{Identifier: "docker-image://" + op.Ref, Attrs: map[string]string{}, Platform: v.Platform}
	if op.Pull {
		s.Attrs[pb.AttrImageResolveMode] = pb.AttrImageResolveModeForcePull
	}
	if op.Layers != nil {
		s.Attrs[pb.AttrImageLayerLimit] = strconv.Itoa(*op.Layers)
	}
	if op.Checksum != "" {
		s.Attrs[pb.AttrImageChecksum] = op.Checksum
	}
	return s, true, nil
}

// roundTrip checks that what is written of v reads as v.
func roundTrip(t testing.TB, v *graph.Vertex, o llb.Options) {
	t.Helper()
	for _, in := range below(v) {
		op, ok := in.Op.(graph.Image)
		if ok && op.Ref != "" && op.Ref[0] == '/' || ok && len(op.Ref) > 4 && op.Ref[:4] == "oci:" {
			return // its name means something to its test only
		}
	}
	o.Files = nil
	enc, err := llb.Encode(v, llb.EncodeOptions{Source: sources, Allow: o.Allow})
	require.NoError(t, err)
	again, err := llb.Decode(enc.Definition, o)
	require.NoError(t, err)
	if v == nil {
		assert.Nil(t, again)
		return
	}
	require.NotNil(t, again)
	assert.Equal(t, v.Digest(), again.Digest(), "what was written reads as something else")
	for d, known := range enc.Vertices {
		assert.NotNil(t, known, d)
	}
}

func below(v *graph.Vertex) []*graph.Vertex {
	if v == nil {
		return nil
	}
	out := []*graph.Vertex{v}
	for _, in := range v.Inputs {
		out = append(out, below(in)...)
	}
	return out
}

func TestEncodeIsTheSameEveryTime(t *testing.T) {
	st := bk.Image("busybox").Run(bk.Args([]string{"a"}), bk.AddEnv("B", "c")).Root().
		File(bk.Copy(bk.HTTP("http://example.com/x", bk.Filename("x"), bk.Chmod(0o600)), "x", "/y"))
	v := decode(t, st, llb.Options{})
	first, err := llb.Encode(v, llb.EncodeOptions{Source: sources})
	require.NoError(t, err)
	for range 20 {
		again, err := llb.Encode(v, llb.EncodeOptions{Source: sources})
		require.NoError(t, err)
		require.Equal(t, first.Definition.Def, again.Definition.Def)
	}
}

func TestEncodeWithWhatAProcessInherits(t *testing.T) {
	amd64 := platform.Platform{OS: "linux", Arch: "amd64"}
	base := graph.New(graph.Image{Ref: "docker.io/library/busybox:latest"}, amd64, graph.Meta{Name: "FROM", Source: "x:1"})
	run := graph.New(graph.Exec{
		Args: []string{"make"}, Env: []string{"A=1"}, Network: graph.NetworkHost,
		Mounts: []graph.Mount{{Type: graph.MountCache, Target: "/c", ID: "c", UID: 7}},
	}, amd64, graph.Meta{Name: "RUN make", Source: "x:2"}, base)
	process := func(*graph.Vertex) (llb.Process, error) {
		return llb.Process{Env: []string{"PATH=/bin", "A=1"}, Cwd: "/src"}, nil
	}
	enc, err := llb.Encode(run, llb.EncodeOptions{Source: sources, Process: process, NoCache: true})
	require.NoError(t, err)
	again, err := llb.Decode(enc.Definition, llb.Options{})
	require.NoError(t, err)
	op, ok := again.Op.(graph.Exec)
	require.True(t, ok)
	assert.Equal(t, []string{"PATH=/bin", "A=1"}, op.Env)
	assert.Equal(t, "/src", op.Cwd)
	assert.Equal(t, graph.NetworkDefault, op.Network, "the network of a daemon's machine is what it allows, the default is what it gives")
	assert.True(t, again.Meta.NoCache)
	require.Len(t, op.Mounts, 1)
	assert.Equal(t, "/cache", op.Mounts[0].Source, "a cache that belongs to a user begins with a directory of theirs")
	var named []digest.Digest
	for d, v := range enc.Vertices {
		if v == run {
			named = append(named, d)
		}
	}
	assert.Len(t, named, 1)
}

func TestEncodeRefusesWhatLLBDoesNotHave(t *testing.T) {
	v := graph.New(graph.Remove{Paths: []string{"/x"}}, platform.Platform{}, graph.Meta{Name: "REMOVE", Source: "x:1"}, nil)
	_, err := llb.Encode(v, llb.EncodeOptions{})
	require.ErrorIs(t, err, llb.ErrUnsupported)
}

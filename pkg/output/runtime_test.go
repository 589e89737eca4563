package output

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/runtimes"
)

// taker is a runtime that takes some platforms and keeps the archives it gets.
type taker struct {
	keep     []int
	why      string
	err      error
	expands  bool
	all, one bytes.Buffer
	unnamed  bytes.Buffer
	docker   bytes.Buffer
	got      runtimes.Bundle
}

func (t *taker) String() string { return "taker" }
func (t *taker) Expands() bool  { return t.expands }
func (t *taker) Holds([]platform.Platform) ([]int, string, error) {
	return t.keep, t.why, t.err
}

func (t *taker) Load(ctx context.Context, b runtimes.Bundle) error {
	t.got = b
	last := len(b.Images) - 1
	return errors.Join(b.OCI(ctx, &t.all, runtimes.All, true), b.OCI(ctx, &t.one, last, true), b.OCI(ctx, &t.unnamed, last, false), b.Docker(ctx, &t.docker, last))
}

func TestRuntime(t *testing.T) {
	var warned []string
	env := Env{Dir: t.TempDir(), Events: func(e event.Event) {
		if e.Kind == event.Warning {
			warned = append(warned, e.Text)
		}
	}}
	two := productOf(t, []string{"hello:1.0", "r.example:5000/a:x"}, amd64(), arm())
	second := productOf(t, []string{"hello:1.0", "r.example:5000/a:x"}, arm())
	rt := &taker{keep: []int{1}, why: "it is small"}
	_, d := OpenRuntime(rt, env)
	checker, ok := d.(PlatformChecker)
	require.True(t, ok)
	require.NoError(t, checker.CheckPlatforms([]platform.Platform{two.Images[0].Platform, two.Images[1].Platform}))
	assert.Equal(t, []string{"it is small: " + two.Images[1].Platform.String() + " is loaded, and " + two.Images[0].Platform.String() + " is not"}, warned)
	require.NoError(t, d.Write(t.Context(), two))

	file := func(arg string, p Product) []byte {
		require.NoError(t, open(t, env, arg).Write(t.Context(), p))
		data, err := os.ReadFile(filepath.Join(env.Dir, "out.tar"))
		require.NoError(t, err)
		return data
	}
	assert.Equal(t, file("type=oci,dest=out.tar", two), rt.all.Bytes(), "the archive that -o type=oci writes")
	assert.Equal(t, file("type=docker,oci-mediatypes=true,dest=out.tar", second), rt.docker.Bytes())
	assert.Equal(t, []string{"docker.io/library/hello:1.0", "r.example:5000/a:x"}, rt.got.Names)
	require.Len(t, rt.got.Images, 1)
	assert.Equal(t, two.Images[1].CfgDesc.Digest.String(), rt.got.Images[0].ID)
	for name, data := range map[string][]byte{"named": rt.one.Bytes(), "": rt.unnamed.Bytes()} {
		members := untar(t, data)
		requireBlobs(t, members, second)
		assert.NotContains(t, members, "blobs/sha256/"+two.Images[0].Desc.Digest.Encoded(), "the other image")
		var idx ocispec.Index
		require.NoError(t, json.Unmarshal(members[ocispec.ImageIndexFile], &idx))
		if name == "" {
			require.Len(t, idx.Manifests, 1)
			assert.Empty(t, idx.Manifests[0].Annotations)
		} else {
			require.Len(t, idx.Manifests, 2)
			assert.Equal(t, "docker.io/library/hello:1.0", idx.Manifests[0].Annotations[annotationContainerdName])
		}
	}

	rt.err = runtimes.ErrPlatform
	require.ErrorIs(t, checker.CheckPlatforms(nil), runtimes.ErrPlatform)
	require.ErrorIs(t, d.Write(t.Context(), two), runtimes.ErrPlatform)
	rt.expands = true
	spec, _ := OpenRuntime(rt, env)
	assert.Equal(t, "uncompressed", spec.Compression.Algorithm)
}

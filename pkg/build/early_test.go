package build_test

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// gated is a build of two layers whose second one waits for a server of the test: what the registry was asked by then was asked
// while a step ran.
type gated struct {
	reg      *testregistry.Registry
	file     string // added to the Dockerfile
	app      []byte // the first layer's file
	platform platform.Platform
	gate     func() int // the server's answer
}

func (g *gated) run(t *testing.T) (build.Result, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(g.gate()) }))
	defer server.Close()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app"), g.app, 0o755))
	text := "FROM scratch\nCOPY app /bin/app\nADD " + server.URL + "/late /late\n" + g.file
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644))
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	name, err := ref.ParseTag(g.reg.Host + "/app:1")
	require.NoError(t, err)
	out, err := output.Parse("type=registry")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	return build.Run(ctx, st, build.Request{
		File: filepath.Join(dir, "Dockerfile"), ContextDir: dir, Dockerfile: &build.Dockerfile{},
		Platforms: []platform.Platform{g.platform}, Tags: []ref.Ref{name}, Outputs: []output.Spec{out},
	}, build.Options{Path: os.Getenv("PATH"), Parallel: 4}) // on a machine of one processor as well
}

// uploads are the requests that end uploads of blobs.
func uploads(reg *testregistry.Registry) []testregistry.Request {
	return reg.Of("PUT", testregistry.Uploads)
}

// waitForUpload waits until the registry has a blob, or two minutes.
func waitForUpload(reg *testregistry.Registry) bool {
	for range 12_000 {
		if slices.ContainsFunc(uploads(reg), func(r testregistry.Request) bool { return r.Status == http.StatusCreated }) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func newGated(t *testing.T) *gated {
	t.Helper()
	return &gated{
		reg: testregistry.New(t, testregistry.Options{}), app: []byte("hello"), platform: platform.Platform{OS: "linux", Arch: "amd64"},
		gate: func() int { return http.StatusOK },
	}
}

func TestLayersAreUploadedWhileLaterStepsRun(t *testing.T) {
	g := newGated(t)
	during := false
	g.gate = func() int {
		during = waitForUpload(g.reg)
		assert.Zero(t, g.reg.Count("PUT", testregistry.Manifests), "a manifest before all layers")
		return http.StatusOK
	}
	res, err := g.run(t)
	require.NoError(t, err)
	assert.True(t, during, "the first layer was not uploaded while the second was made")
	var digests []string
	last := 0
	for i, r := range g.reg.Settled(t) {
		switch {
		case r.Method == "PUT" && strings.Contains(r.Path, testregistry.Uploads):
			digests = append(digests, r.Query)
			last = i
		case r.Method == "PUT" && strings.Contains(r.Path, testregistry.Manifests):
			assert.Greater(t, i, last)
			last = 1 << 30
		}
	}
	assert.Len(t, digests, 3, "two layers and a config")
	assert.Len(t, slices.Compact(slices.Sorted(slices.Values(digests))), 3, "nothing is sent twice")
	raw, ok := g.reg.Manifest("app", "1")
	require.True(t, ok)
	assert.Equal(t, res.Images[0].Manifest, raw)
}

func TestAFailedBuildLeavesNoTag(t *testing.T) {
	g := newGated(t)
	g.gate = func() int { waitForUpload(g.reg); return http.StatusForbidden }
	_, err := g.run(t)
	require.ErrorIs(t, err, build.ErrStep)
	assert.NotEmpty(t, uploads(g.reg), "the first layer was sent")
	assert.Zero(t, g.reg.Count("PUT", testregistry.Manifests))
}

func TestTheGateDecidesBeforeManifests(t *testing.T) {
	g := newGated(t)
	g.app = program(62) // x86-64
	g.platform = platform.Platform{OS: "linux", Arch: "s390x"}
	g.file = "ENTRYPOINT [\"/bin/app\"]\n"
	g.gate = func() int { waitForUpload(g.reg); return http.StatusOK }
	_, err := g.run(t)
	require.ErrorIs(t, err, build.ErrFindings)
	assert.NotEmpty(t, uploads(g.reg), "the layer was sent")
	assert.Zero(t, g.reg.Count("PUT", testregistry.Manifests))
}

// program is the header of a static program for a machine of ELF's numbering.
func program(machine uint16) []byte {
	b := make([]byte, 4096)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2) // an executable
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], 0x400078)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1) // one segment to load
	le.PutUint32(b[68:], 5)
	le.PutUint64(b[80:], 0x400000)
	le.PutUint64(b[96:], 4096)
	le.PutUint64(b[104:], 4096)
	return b
}

func TestAnUploadThatFailsIsTheBuildsErrorAtItsEnd(t *testing.T) {
	g := newGated(t)
	g.reg.When("POST", testregistry.Uploads, 0, testregistry.Status(http.StatusForbidden, "DENIED"))
	reached := false
	g.gate = func() int { reached = true; return http.StatusOK }
	_, err := g.run(t)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Contains(t, err.Error(), "exporting to registry: pushing to "+g.reg.Host+"/app")
	assert.True(t, reached, "the steps went on")
	assert.Zero(t, g.reg.Count("PUT", testregistry.Manifests))
}

func TestABlobThatFailedAheadIsSentAgain(t *testing.T) {
	g := newGated(t)
	g.reg.Between("POST", testregistry.Uploads, 1, 1, testregistry.Status(http.StatusForbidden, "DENIED"))
	g.gate = func() int {
		for range 12_000 {
			if g.reg.Count("POST", testregistry.Uploads) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return http.StatusOK
	}
	_, err := g.run(t)
	require.NoError(t, err)
	_, ok := g.reg.Manifest("app", "1")
	assert.True(t, ok)
}

func TestABlobThatWasCollectedMeanwhileIsSentAgain(t *testing.T) {
	g := newGated(t)
	g.gate = func() int {
		if !waitForUpload(g.reg) {
			return http.StatusOK
		}
		_, id, _ := strings.Cut(uploads(g.reg)[0].Query, "digest=")
		for _, l := range []string{id, strings.ReplaceAll(id, "%3A", ":")} {
			if d, err := digest.Parse(l); err == nil {
				g.reg.Drop("app", d)
			}
		}
		return http.StatusOK
	}
	g.reg.When("PUT", testregistry.Manifests, 1, testregistry.Status(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN"))
	res, err := g.run(t)
	require.NoError(t, err)
	for _, l := range res.Images[0].Layers {
		_, ok := g.reg.Blob("app", l.Digest)
		assert.True(t, ok, "layer %s is missing", l.Digest)
	}
}

package remotecache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// nothing is a store without records.
type nothing struct{}

func (nothing) Get(context.Context, digest.Digest) (solve.Record, bool) { return solve.Record{}, false }
func (nothing) Put(context.Context, digest.Digest, solve.Record) error  { return nil }

// blobs are the content of an export.
type blobs map[digest.Digest][]byte

func (b blobs) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, ok := b[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", desc.Digest)
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

var (
	amd64 = platform.Platform{OS: "linux", Arch: "amd64"}
	arm64 = platform.Platform{OS: "linux", Arch: "arm64"}
)

// target is a platform with one step, whose layer holds one file.
func target(t *testing.T, p platform.Platform, name string, content blobs) remotecache.Target {
	t.Helper()
	raw := testimage.Layer(testimage.File(name, name)).Tar
	var packed bytes.Buffer
	require.NoError(t, layer.Compress(t.Context(), &packed, bytes.NewReader(raw), layer.Compression{}))
	toc, err := layer.ReadTOC(t.Context(), bytes.NewReader(raw), layer.Limits{})
	require.NoError(t, err)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(packed.Bytes()), Size: int64(packed.Len())}
	content[desc.Digest] = packed.Bytes()
	return remotecache.Target{
		Platform: p,
		Steps: []remotecache.Step{{Key: key(name), Record: solve.Record{
			Name: "RUN " + name, Platform: p.String(), Layers: []solve.Layer{{DiffID: toc.DiffID, Size: toc.Size}},
		}}},
		Layers: []remotecache.Layer{{DiffID: toc.DiffID, Size: toc.Size, Blob: &desc, Compression: "gzip", Notes: map[string][]byte{"toc": []byte("toc of " + name), "facts": []byte("facts of " + name)}}},
	}
}

func key(name string) digest.Digest { return digest.FromString("key of " + name) }

type place struct {
	to, from string
	dir      string // of the registry's files or the layout
	env      transfer.Env
	store    *store.Store
}

// places are a registry and a directory.
func places(t *testing.T) map[string]place {
	t.Helper()
	served := t.TempDir()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: served})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	client := registry.New(registry.Options{})
	t.Cleanup(client.Close)
	env := transfer.Env{Registry: client, Dir: t.TempDir(), Now: time.Now}
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	name := strings.TrimPrefix(srv.URL, "http://") + "/app:cache"
	return map[string]place{
		"registry": {to: "type=registry,ref=" + name + ",mode=max", from: name, dir: served, env: env, store: st},
		"local":    {to: "type=local,dest=cache", from: "type=local,src=cache", dir: filepath.Join(env.Dir, "cache"), env: env, store: st},
	}
}

func (p place) export(t *testing.T, content blobs, targets ...remotecache.Target) error {
	t.Helper()
	s, err := remotecache.ParseTo(p.to)
	require.NoError(t, err)
	return remotecache.Export(t.Context(), p.env, s, targets, content)
}

func (p place) open(t *testing.T) (*remotecache.Cache, *[]string) {
	t.Helper()
	s, err := remotecache.ParseFrom(p.from)
	require.NoError(t, err)
	var warnings []string
	c, err := remotecache.Open(t.Context(), nothing{}, p.store, &source.Opener{Registry: p.env.Registry, Dir: p.env.Dir}, []remotecache.Spec{s},
		event.Serial(func(e event.Event) { warnings = append(warnings, e.Text) }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, &warnings
}

func TestRecordsOfAllPlatformsAreUnderOneName(t *testing.T) {
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			content := blobs{}
			c, warnings := p.open(t)
			_, ok := c.Get(t.Context(), key("one"))
			assert.False(t, ok)
			assert.Len(t, *warnings, 1, "a place that is not there is a warning")

			require.NoError(t, p.export(t, content, target(t, amd64, "one", content)))
			require.NoError(t, p.export(t, content, target(t, arm64, "two", content)))
			c, warnings = p.open(t)
			assert.Empty(t, *warnings)
			for _, step := range []string{"one", "two"} {
				r, ok := c.Get(t.Context(), key(step))
				require.True(t, ok, step)
				assert.Equal(t, "RUN "+step, r.Name)
				require.Len(t, r.Layers, 1)

				require.True(t, c.Learn(t.Context(), r.Layers[0].DiffID))
				note, err := p.store.GetRecord("facts", r.Layers[0].DiffID.Encoded())
				require.NoError(t, err)
				assert.Equal(t, "facts of "+step, string(note.Data))
				desc, rc, err := c.OpenBlob(t.Context(), r.Layers[0].DiffID)
				require.NoError(t, err)
				raw, err := io.ReadAll(rc)
				require.NoError(t, err)
				require.NoError(t, rc.Close())
				assert.Equal(t, content[desc.Digest], raw)
			}

			// The same platform again: the new counts.
			require.NoError(t, p.export(t, content, target(t, amd64, "three", content)))
			c, _ = p.open(t)
			for step, want := range map[string]bool{"one": false, "two": true, "three": true} {
				_, ok := c.Get(t.Context(), key(step))
				assert.Equal(t, want, ok, step)
			}
		})
	}
}

func TestWritersOfDifferentPlatformsKeepEachOthersRecords(t *testing.T) {
	ps := []platform.Platform{amd64, arm64, {OS: "linux", Arch: "riscv64"}, {OS: "linux", Arch: "s390x"}, {OS: "linux", Arch: "ppc64le"}}
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for _, pl := range ps {
				content := blobs{}
				tg := target(t, pl, pl.Arch, content)
				wg.Go(func() { assert.NoError(t, p.export(t, content, tg)) })
			}
			wg.Wait()
			c, _ := p.open(t)
			for _, pl := range ps {
				_, ok := c.Get(t.Context(), key(pl.Arch))
				assert.True(t, ok, pl.Arch)
			}
		})
	}
}

func TestARecordWhoseLayerIsGoneIsNone(t *testing.T) {
	for name, p := range places(t) {
		t.Run(name, func(t *testing.T) {
			content := blobs{}
			tg := target(t, amd64, "one", content)
			require.NoError(t, p.export(t, content, tg))
			removed := 0
			require.NoError(t, filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
				if err == nil && filepath.Base(path) == tg.Layers[0].Blob.Digest.Encoded() {
					removed++
					return os.Remove(path)
				}
				return err
			}))
			require.Positive(t, removed)
			c, _ := p.open(t)
			_, ok := c.Get(t.Context(), key("one"))
			assert.False(t, ok)
		})
	}
}

func TestSpec(t *testing.T) {
	for text, want := range map[string]struct {
		to, from bool
	}{
		"example.com/app:cache":                                  {true, true},
		"type=registry,ref=example.com/app:cache":                {true, true},
		"type=registry,ref=example.com/app:cache,mode=max":       {true, false},
		"type=registry,ref=example.com/app,ignore-error=true":    {true, true},
		"type=registry,ref=example.com/app,image-manifest=true":  {true, true},
		"type=local,dest=dir":                                    {true, false},
		"type=local,src=dir,tag=x":                               {false, true},
		"type=inline":                                            {true, false},
		"type=inline,mode=max":                                   {false, false},
		"type=gha":                                               {false, false},
		"type=registry":                                          {false, false},
		"type=registry,ref=UPPER":                                {false, false},
		"type=registry,ref=oci:dir":                              {false, false},
		"type=registry,ref=example.com/app,mode=most":            {false, false},
		"type=registry,ref=example.com/app,ignore-error=perhaps": {false, false},
		"type=registry,ref=example.com/app,what=ever":            {false, false},
		"type=local,dest=dir,tag=a/b":                            {false, false},
		"type=registry,\"ref=example.com/app":                    {false, false},
		"type=registry,ref":                                      {false, false},
	} {
		_, err := remotecache.ParseTo(text)
		assert.Equal(t, want.to, err == nil, "to %s: %v", text, err)
		if err != nil {
			assert.ErrorIs(t, err, remotecache.ErrInvalid)
		}
		_, err = remotecache.ParseFrom(text)
		assert.Equal(t, want.from, err == nil, "from %s: %v", text, err)
	}
}

func FuzzDecodeConfig(f *testing.F) {
	d := digest.FromString("x")
	for _, s := range []string{
		`{"version":1,"records":[],"layers":[]}`,
		fmt.Sprintf(`{"version":1,"records":[{"key":%q,"layers":[%q],"more":{"1":[%q]}}],"layers":[{"diffID":%q,"size":3,"blob":{"digest":%q,"size":4}}]}`, d, d, d, d, d),
		`{"version":1,"records":[{"key":"sha256:../../etc"}]}`, `{"version":2}`, `[]`, `{"version":1,"layers":[{"diffID":"sha256:x"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, err := remotecache.DecodeConfig(raw)
		if err != nil {
			return
		}
		for _, k := range keys {
			require.NoError(t, k.Validate())
		}
	})
}

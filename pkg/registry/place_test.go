package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// via leads every pull to mirrors first, and everything else to its own place.
type via struct {
	mirrors  []string // HOST:PORT
	insecure bool
	moved    string // HOST:PORT of the place itself, if that is elsewhere
	err      error
}

func (v via) Places(r ref.Ref, pull bool) (out []registry.Place, err error) {
	if v.err != nil {
		return nil, v.err
	}
	if pull {
		for _, m := range v.mirrors {
			to := r
			to.Host, to.Repo = m, "hub/"+r.Repo
			out = append(out, registry.Place{Ref: to, Mirror: true, Insecure: v.insecure})
		}
	}
	if v.moved != "" {
		r.Host, r.Repo = v.moved, "moved/"+r.Repo
	}
	return append(out, registry.Place{Ref: r}), nil
}

// byHost has another password for every registry.
type byHost struct{}

func (byHost) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "u", Password: "for " + r.RegistryStr()}, nil
}

// TestMirror_C32 holds what a mirror can and cannot do.
func TestMirror_C32(t *testing.T) {
	desc, b := randomBlob(t, 300<<10)
	raw := imageManifest("x")
	wrong := append([]byte(nil), b...)
	wrong[200_000] ^= 1
	// pullAll reads a manifest by tag and a blob, and asks again once when a mirror has lied.
	pullAll := func(t *testing.T, c *registry.Client, host string) {
		t.Helper()
		_, got, err := c.Manifest(t.Context(), mustParse(t, host+"/app:1"))
		require.NoError(t, err)
		assert.Equal(t, raw, got)
		data, err := pull(t, c, host+"/app:1", desc)
		if errors.Is(err, registry.ErrMirror) {
			require.ErrorIs(t, err, registry.ErrCorrupt)
			data, err = pull(t, c, host+"/app:1", desc)
		}
		require.NoError(t, err)
		assert.True(t, bytes.Equal(b, data))
	}
	for name, tc := range map[string]struct {
		mirror func(m *testregistry.Registry)
		at     string // "": the mirror
		home   int    // requests that the place itself gets
	}{
		"it has everything": {func(m *testregistry.Registry) {}, "", 0},
		"it has nothing":    {func(m *testregistry.Registry) { m.When("", "", 0, testregistry.Status(404, "NAME_UNKNOWN")) }, "", 2},
		"it has no blobs": {func(m *testregistry.Registry) {
			m.When("", testregistry.Blobs, 0, testregistry.Status(404, "BLOB_UNKNOWN"))
		}, "", 1},
		"it wants what we lack": {func(m *testregistry.Registry) { m.When("", "", 0, testregistry.Status(403, "DENIED")) }, "", 2},
		"it is broken":          {func(m *testregistry.Registry) { m.When("", "", 0, testregistry.Status(503, "UNAVAILABLE")) }, "", 2},
		"it shows a login page": {func(m *testregistry.Registry) {
			m.When("", "", 0, testregistry.Answer(200, []byte("<html>"), "Content-Type", "text/html"))
		}, "", 2},
		"it is not there":       {func(m *testregistry.Registry) {}, "nowhere", 2},
		"it sends another blob": {func(m *testregistry.Registry) { m.When("GET", testregistry.Blobs, 0, testregistry.Answer(200, wrong)) }, "", 1},
		"a blob of another size": {func(m *testregistry.Registry) {
			m.When("GET", testregistry.Blobs, 0, testregistry.Answer(200, wrong[:1000]))
		}, "", 1},
		"it is cut for ever": {func(m *testregistry.Registry) { m.When("GET", testregistry.Blobs, 0, testregistry.Cut(1000)) }, "", 1},
		"it dies in the middle": {func(m *testregistry.Registry) {
			m.When("GET", testregistry.Blobs, 1, testregistry.Cut(100_000))
			m.Between("GET", testregistry.Blobs, 2, 99, testregistry.Status(404, ""))
		}, "", 1},
		"it lies, and then dies": {func(m *testregistry.Registry) {
			m.When("GET", testregistry.Blobs, 1, testregistry.Do(func(w http.ResponseWriter, r *http.Request) bool {
				return cutAfter(wrong, 250_000)(w, r)
			}))
			m.Between("GET", testregistry.Blobs, 2, 99, testregistry.Status(404, ""))
		}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			log := &testregistry.Transcript{}
			home := fakeOf(testregistry.New(t, testregistry.Options{Transcript: log}))
			home.put("app", b)
			home.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
			mirror := fakeOf(testregistry.New(t, testregistry.Options{}))
			mirror.put("hub/app", b)
			mirror.putManifest("hub/app", "1", ocispec.MediaTypeImageManifest, raw)
			tc.mirror(mirror.Registry)
			at := mirror.host
			if tc.at == "nowhere" {
				at = testregistry.Nobody(t)
			}
			evs := &events{}
			c := client(registry.Options{Places: via{mirrors: []string{at}}, Events: evs.sink})
			pullAll(t, c, home.host)
			assert.Equal(t, tc.home, len(home.requests()), "%v", home.requests())
			if tc.at == "nowhere" {
				assert.Len(t, evs.of(event.Warning), 1, "it is said, once")
			}
		})
	}
	t.Run("the next mirror", func(t *testing.T) {
		home, second := newFake(t), newFake(t)
		second.put("hub/app", b)
		second.putManifest("hub/app", "1", ocispec.MediaTypeImageManifest, raw)
		pullAll(t, client(registry.Options{Places: via{mirrors: []string{testregistry.Nobody(t), second.host}}}), home.host)
		assert.Empty(t, home.requests())
	})
	t.Run("nobody has it", func(t *testing.T) {
		home, mirror := newFake(t), newFake(t)
		mirror.When("", "", 0, testregistry.Status(500, "ITS_OWN_FAULT"))
		_, _, err := client(registry.Options{Places: via{mirrors: []string{mirror.host}}}).Manifest(t.Context(), mustParse(t, home.host+"/app:1"))
		require.ErrorIs(t, err, registry.ErrNotFound, "the kind is the original's")
		assert.Contains(t, err.Error(), "ITS_OWN_FAULT")
		assert.Equal(t, 2, mirror.Count("GET", ""), "less patience where there is another place")
	})
	t.Run("each gets its own credentials", func(t *testing.T) {
		log := &testregistry.Transcript{}
		home := fakeOf(testregistry.New(t, testregistry.Options{Transcript: log}))
		mirror := fakeOf(testregistry.New(t, testregistry.Options{Transcript: log}))
		home.Basic("u", "for "+home.host)
		mirror.Basic("u", "for "+mirror.host)
		home.put("app", b)
		home.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
		pullAll(t, client(registry.Options{Places: via{mirrors: []string{mirror.host}}, Keychain: byHost{}}), home.host)
		for _, r := range log.Requests() {
			if r.Auth() == "" {
				continue
			}
			req := http.Request{Header: r.Header}
			_, pass, _ := req.BasicAuth()
			assert.Equal(t, "for "+r.Origin[len("http://"):], pass)
		}
	})
	t.Run("nothing is pushed to it, and what was pushed is not asked of it", func(t *testing.T) {
		home, mirror := newFake(t), newFake(t)
		home.When("PUT", testregistry.Manifests, 0, testregistry.Headers("Docker-Content-Digest", ""))
		c := client(registry.Options{Places: via{mirrors: []string{mirror.host}, moved: home.host}})
		r := mustParse(t, "r.example/app:1")
		_, err := c.PushBlob(t.Context(), r, desc, opener(b), []ref.Ref{mustParse(t, "r.example/other:1")})
		require.NoError(t, err)
		assert.True(t, home.holds("moved/app", b), "where it moved to")
		assert.Contains(t, home.Of("POST", "")[0].Query, "from=moved%2Fother", "and so is what it is mounted from")
		_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, raw)
		require.NoError(t, err)
		_, err = c.Head(t.Context(), r)
		require.NoError(t, err)
		assert.Empty(t, mirror.requests())
	})
	t.Run("a push whose source is a mirror that lies is begun anew", func(t *testing.T) {
		home, mirror, dst := newFake(t), newFake(t), newFake(t)
		home.put("app", b)
		mirror.When("GET", testregistry.Blobs, 0, testregistry.Answer(200, wrong))
		c := client(registry.Options{Places: via{mirrors: []string{mirror.host}}})
		_, err := c.PushBlob(t.Context(), mustParse(t, dst.host+"/app:1"), desc, func(ctx context.Context) (io.ReadCloser, error) {
			return c.Blob(ctx, mustParse(t, home.host+"/app:1"), desc)
		}, nil)
		require.NoError(t, err)
		assert.True(t, dst.holds("app", b))
		assert.False(t, dst.holds("app", wrong))
	})
	t.Run("tags are those of the place itself", func(t *testing.T) {
		home, mirror := newFake(t), newFake(t)
		home.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
		home.putManifest("app", "2", ocispec.MediaTypeImageManifest, raw)
		mirror.putManifest("hub/app", "1", ocispec.MediaTypeImageManifest, raw)
		tags, err := client(registry.Options{Places: via{mirrors: []string{mirror.host}}}).Tags(t.Context(), mustParse(t, home.host+"/app"))
		require.NoError(t, err)
		assert.Equal(t, []string{"1", "2"}, tags)
		tags, err = client(registry.Options{Places: via{mirrors: []string{mirror.host}}}).Tags(t.Context(), mustParse(t, testregistry.Nobody(t)+"/app"))
		require.NoError(t, err)
		assert.Equal(t, []string{"1"}, tags, "unless nobody is there")
	})
	t.Run("forbidden", func(t *testing.T) {
		home := newFake(t)
		no := errors.New("no")
		c := client(registry.Options{Places: via{err: no}})
		r := mustParse(t, home.host+"/app:1")
		_, err := c.Resolve(t.Context(), r)
		require.ErrorIs(t, err, no)
		_, err = c.PushBlob(t.Context(), r, desc, opener(b), nil)
		require.ErrorIs(t, err, no)
		_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, raw)
		require.ErrorIs(t, err, no)
		_, err = pull(t, c, home.host+"/app:1", desc)
		require.ErrorIs(t, err, no)
		assert.Empty(t, home.requests())
	})
	t.Run("insecure: TLS of anybody, and http where there is none", func(t *testing.T) {
		for _, mirror := range []*fake{newTLSFake(t), newFake(t)} {
			mirror.putManifest("hub/app", "1", ocispec.MediaTypeImageManifest, raw)
			_, port, err := net.SplitHostPort(mirror.host)
			require.NoError(t, err)
			for _, insecure := range []bool{true, false} {
				home := newFake(t)
				home.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
				c := client(registry.Options{Places: via{mirrors: []string{"m.example:" + port}, insecure: insecure}})
				c.SetNetwork(func(addr string) string {
					if addr == "m.example:"+port {
						return mirror.host
					}
					return addr
				}, nil)
				before := len(mirror.requests())
				_, _, err := c.Manifest(t.Context(), mustParse(t, home.host+"/app:1"))
				require.NoError(t, err)
				assert.Equal(t, insecure, len(mirror.requests()) > before)
				assert.Equal(t, insecure, len(home.requests()) == 0)
			}
		}
	})
}

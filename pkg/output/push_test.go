package output

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// recorder is a registry that takes everything and remembers the order.
type recorder struct {
	mu    sync.Mutex
	calls []string // "blob REPO sha256:...", "manifest REPO:TAG"
	mount map[digest.Digest][]ref.Ref
	fail  func(call string) error
}

func (r *recorder) did(call string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	if r.fail != nil {
		return r.fail(call)
	}
	return nil
}

func (r *recorder) PushBlob(ctx context.Context, to ref.Ref, desc ocispec.Descriptor, open registry.Open, from []ref.Ref) (bool, error) {
	rc, err := open(ctx)
	if err != nil {
		return false, err
	}
	data, err := io.ReadAll(rc)
	if err != nil {
		return false, err
	}
	if digest.FromBytes(data) != desc.Digest {
		return false, errBroken
	}
	r.mu.Lock()
	if r.mount == nil {
		r.mount = map[digest.Digest][]ref.Ref{}
	}
	r.mount[desc.Digest] = append(r.mount[desc.Digest], from...)
	r.mu.Unlock()
	return true, r.did("blob " + to.Repository() + " " + desc.Digest.String())
}

func (r *recorder) PushManifest(_ context.Context, to ref.Ref, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return desc, r.did("manifest " + to.String())
}

func push(t *testing.T, r *recorder, byDigest bool, p Product) error {
	t.Helper()
	c, err := closureOf(t.Context(), p)
	require.NoError(t, err)
	return (&pusher{client: r, byDigest: byDigest}).push(t.Context(), p, c)
}

func TestPushOrder(t *testing.T) {
	p := productOf(t, []string{"r.example/a:1", "r.example/a:2", "r.example/b", "s.example/a:1", "r.example/a:1"}, amd64(), arm())
	known, err := ref.Parse("r.example/known:1")
	require.NoError(t, err)
	layer := p.Images[0].Layers[0].Digest
	p.Mounts[layer] = []ref.Ref{known}
	var r recorder
	require.NoError(t, push(t, &r, false, p))
	assert.Equal(t, []string{
		"manifest r.example/a:1", "manifest r.example/a:2", "manifest r.example/b:latest", "manifest s.example/a:1",
	}, r.calls[len(r.calls)-4:], "tags last, once, in order")
	for _, c := range r.calls[:len(r.calls)-4] {
		assert.NotContains(t, c, p.Root.Digest.String())
	}
	for _, repo := range []string{"r.example/a", "r.example/b", "s.example/a"} {
		lastBlob, firstManifest, n := 0, len(r.calls), 0
		for i, c := range r.calls {
			if strings.HasPrefix(c, "blob "+repo+" ") {
				lastBlob = max(lastBlob, i)
				n++
			}
			if strings.HasPrefix(c, "manifest "+repo+"@") {
				firstManifest = min(firstManifest, i)
			}
		}
		assert.Equal(t, 5, n, "every blob once")
		assert.Less(t, lastBlob, firstManifest, "blobs before manifests")
	}
	assert.Contains(t, r.mount[layer], known)
	assert.True(t, slices.ContainsFunc(r.mount[layer], func(m ref.Ref) bool { return m.Repository() == "r.example/a" }),
		"a repository that was pushed to is mounted from")
}

// TestPushWaitsForTheStore: content is pushed while the store writes its names, tags only when it has.
func TestPushWaitsForTheStore(t *testing.T) {
	p := productOf(t, []string{"r.example/a:1"}, amd64(), arm())
	c, err := closureOf(t.Context(), p)
	require.NoError(t, err)
	tag := "manifest r.example/a:1"
	var r recorder
	kept := func() error {
		assert.NotEmpty(t, r.calls)
		assert.NotContains(t, r.calls, tag)
		return nil
	}
	require.NoError(t, (&pusher{client: &r, kept: kept}).push(t.Context(), p, c))
	assert.Contains(t, r.calls, tag)

	r = recorder{}
	err = (&pusher{client: &r, kept: func() error { return errBroken }}).push(t.Context(), p, c)
	require.ErrorIs(t, err, errBroken)
	assert.NotContains(t, r.calls, tag)
}

func TestPushSingleAndByDigest(t *testing.T) {
	p := productOf(t, []string{"r.example/a:1", "r.example/a:2"}, amd64())
	var r recorder
	require.NoError(t, push(t, &r, false, p))
	assert.Equal(t, []string{"manifest r.example/a:1", "manifest r.example/a:2"}, r.calls[2:])

	r = recorder{}
	require.NoError(t, push(t, &r, true, p))
	assert.Equal(t, []string{"manifest r.example/a@" + p.Root.Digest.String()}, r.calls[2:])
}

// TestPushFails/B25: whatever fails, no tag is written.
func TestPushFails(t *testing.T) {
	for name, part := range map[string]string{
		"a blob": "blob ", "a blob of the last repository": "blob s.example", "a manifest": "manifest r.example/a@", "a manifest of the last": "manifest s.example/a@",
	} {
		t.Run("B25_"+name, func(t *testing.T) {
			r := recorder{fail: func(call string) error {
				if strings.HasPrefix(call, part) {
					return errBroken
				}
				return nil
			}}
			require.ErrorIs(t, push(t, &r, false, productOf(t, []string{"r.example/a:1", "s.example/a:1"}, amd64(), arm())), errBroken)
			for _, c := range r.calls {
				assert.NotContains(t, c, "a:1")
			}
		})
	}
	t.Run("B25 a child that is nowhere", func(t *testing.T) {
		p := productOf(t, []string{"r.example/a:1"}, amd64(), arm())
		content, ok := p.Content.(blobs)
		require.True(t, ok)
		delete(content.data, p.Images[1].Desc.Digest)
		p.Images = p.Images[:1]
		_, err := closureOf(t.Context(), p)
		require.Error(t, err)
	})
	t.Run("not a registry", func(t *testing.T) {
		p := productOf(t, nil, amd64())
		p.Names = []ref.Ref{{Kind: ref.Store, Name: "x", Tag: "y"}}
		require.ErrorIs(t, push(t, &recorder{}, false, p), ErrInvalid)
	})
}

// TestPushAgain: a registry may deny for a moment a blob that several send it at the same time (docker-registry 2.8 does), or
// have lost what it said it had. Everything is sent once more, a few times; and what stays refused is an error.
func TestPushAgain(t *testing.T) {
	p := productOf(t, []string{"r.example/a:1"}, amd64(), arm())
	for refusals, works := range map[int]bool{1: true, 3: true, 100: false} {
		left := refusals
		r := recorder{fail: func(call string) error {
			if !strings.HasPrefix(call, "manifest ") || left == 0 {
				return nil
			}
			left--
			return &registry.Error{Status: 400, Codes: []string{"DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"}}
		}}
		err := push(t, &r, false, p)
		if !works {
			require.ErrorIs(t, err, registry.ErrBlobUnknown)
			continue
		}
		require.NoError(t, err, "%d", refusals)
		assert.Equal(t, "manifest r.example/a:1", r.calls[len(r.calls)-1])
	}
}

func TestPushToARegistry(t *testing.T) {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	env := Env{Store: openStore(t), Registry: registry.New(registry.Options{})}
	name := host + "/app/hello:1.0"
	p := productOf(t, []string{name}, amd64(), arm())
	require.NoError(t, open(t, env, "type=registry,name="+name).Write(t.Context(), p))
	got, raw, err := env.Registry.Manifest(t.Context(), p.Names[0])
	require.NoError(t, err)
	assert.Equal(t, p.Root.Digest, got.Digest)
	assert.Equal(t, p.Raw, raw)
	for _, img := range p.Images {
		_, raw, err := env.Registry.Manifest(t.Context(), p.Names[0].WithDigest(img.Desc.Digest))
		require.NoError(t, err)
		assert.Equal(t, img.Manifest, raw)
	}
	kept, err := env.Store.GetRef(p.Names[0].Familiar())
	require.NoError(t, err)
	assert.Equal(t, p.Root.Digest, kept.Digest, "what is pushed is in the store too")

	single := productOf(t, []string{host + "/app/split"}, testimage.Image("linux/arm64", base("x").Gzip()))
	require.NoError(t, open(t, env, "type=image,push=true,push-by-digest=true,name="+host+"/app/split").Write(t.Context(), single))
	_, _, err = env.Registry.Manifest(t.Context(), single.Names[0])
	require.ErrorIs(t, err, registry.ErrNotFound)
	got, err = env.Registry.Resolve(t.Context(), single.Names[0].WithDigest(single.Root.Digest))
	require.NoError(t, err)
	assert.Equal(t, single.Root.Digest, got.Digest)
	_, err = env.Store.GetRef(single.Names[0].Familiar())
	require.Error(t, err, "nor has it a tag in the store")
	_, err = env.Store.GetRef(single.Names[0].WithDigest(single.Root.Digest).Familiar())
	require.NoError(t, err)
}

func TestImage(t *testing.T) {
	env := Env{Store: openStore(t)}
	p := productOf(t, []string{"hello:1.0", "hello"}, amd64(), arm())
	require.NoError(t, open(t, env, "type=image,name-canonical=true").Write(t.Context(), p))
	refs, err := env.Store.Refs()
	require.NoError(t, err)
	var names []string
	for _, r := range refs {
		assert.Equal(t, p.Root.Digest, r.Desc.Digest)
		names = append(names, r.Name)
	}
	slices.Sort(names)
	assert.Equal(t, []string{"hello:1.0", "hello:latest", "hello@" + p.Root.Digest.String()}, names)
	c, err := closureOf(t.Context(), p)
	require.NoError(t, err)
	for _, desc := range c.all() {
		_, err := env.Store.Stat(desc.Digest)
		require.NoError(t, err)
	}
}

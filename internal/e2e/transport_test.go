package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// pushed is an index in a registry, and what it reaches.
type pushed struct {
	index     digest.Digest
	manifests []digest.Digest
	blobs     []digest.Digest
}

// putImages makes a registry hold an index of images, whose one layer each is what layer says.
func putImages(t *testing.T, r *testregistry.Registry, repo, tag string, platforms []string, layer func(p string) ocispec.Descriptor) (out pushed) {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, p := range platforms {
		os, arch, _ := strings.Cut(p, "/")
		config := fmt.Appendf(nil, `{"os":%q,"architecture":%q,"rootfs":{"type":"layers","diff_ids":[%q]}}`, os, arch, digest.FromString(p))
		desc := layer(p)
		m := ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: r.Put(repo, config), Size: int64(len(config))},
			Layers:    []ocispec.Descriptor{desc},
		}
		m.SchemaVersion = 2
		raw, err := json.Marshal(m)
		require.NoError(t, err)
		d := r.PutManifest(repo, "", m.MediaType, raw)
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: m.MediaType, Digest: d, Size: int64(len(raw)), Platform: &ocispec.Platform{OS: os, Architecture: arch},
		})
		out.manifests = append(out.manifests, d)
		out.blobs = append(out.blobs, m.Config.Digest, desc.Digest)
	}
	raw, err := json.Marshal(index)
	require.NoError(t, err)
	out.index = r.PutManifest(repo, tag, index.MediaType, raw)
	return out
}

var sixPlatforms = []string{"linux/amd64", "linux/arm64", "linux/arm", "linux/riscv64", "linux/s390x", "linux/ppc64le"}

// TestCopy_D20_memory copies 600 MB that exist nowhere from registry to registry: it needs a few megabytes beside those of the
// program itself, whose pages of code count as well.
func TestCopy_D20_memory(t *testing.T) {
	const size = 100 << 20
	src, dst := testregistry.New(t, testregistry.Options{}), testregistry.New(t, testregistry.Options{})
	made := map[string]byte{} // the byte that a layer consists of
	images := putImages(t, src, "big", "1", sixPlatforms, func(p string) ocispec.Descriptor {
		fill := byte(len(made) + 1)
		h := sha256.New()
		_, err := io.Copy(h, io.LimitReader(same(fill), size))
		require.NoError(t, err)
		d := digest.NewDigest(digest.SHA256, h)
		made[d.Encoded()] = fill
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}
	})
	src.When("GET", testregistry.Blobs, 0, testregistry.Do(func(w http.ResponseWriter, r *http.Request) bool {
		fill, ok := made[r.URL.Path[strings.LastIndexByte(r.URL.Path, ':')+1:]]
		if !ok {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = io.Copy(w, io.LimitReader(same(fill), size))
		return true
	}))
	dst.When("PUT", testregistry.Uploads, 0, testregistry.Do(func(w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength < size {
			return false
		}
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		if d := digest.NewDigest(digest.SHA256, h); d.String() != r.URL.Query().Get("digest") {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		w.WriteHeader(http.StatusCreated)
		return true
	}))
	cmd := who{name: "self", home: t.TempDir()}.command(nil, "copy", src.Host+"/big:1", dst.Host+"/big:1")
	peak := peakMemory(t, cmd)
	got, ok := dst.Manifest("big", "1")
	require.True(t, ok)
	assert.Equal(t, images.index, digest.FromBytes(got))
	least := peakMemory(t, who{name: "self", home: t.TempDir()}.command(nil, "version"))
	t.Logf("peak %d KiB, of which %d KiB are the program's own", peak, least)
	assert.LessOrEqual(t, peak, least+(12<<10), "KiB")
}

// same is one byte without end.
type same byte

func (s same) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s)
	}
	return len(p), nil
}

// TestCopy_C29_killed kills a copy of a multi-platform image at each request that its destination sees: the tag is the old one or
// the new one and whole, and another run sends only what is missing.
func TestCopy_C29_killed(t *testing.T) {
	src := testregistry.New(t, testregistry.Options{})
	images := putImages(t, src, "app", "1", sixPlatforms[:3], func(p string) ocispec.Descriptor {
		layer := []byte(strings.Repeat(p, 20_000))
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: src.Put("app", layer), Size: int64(len(layer))}
	})
	w := who{name: "self", home: t.TempDir()}
	old := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	whole := func(dst *testregistry.Registry) bool {
		for _, d := range images.manifests {
			if _, ok := dst.Manifest("app", d.String()); !ok {
				return false
			}
		}
		for _, d := range images.blobs {
			if _, ok := dst.Blob("app", d); !ok {
				return false
			}
		}
		return true
	}
	killed := 0
	for nth := 1; ; nth++ {
		dst := testregistry.New(t, testregistry.Options{})
		dst.PutManifest("app", "1", ocispec.MediaTypeImageIndex, old)
		cmd := w.command(nil, "copy", src.Host+"/app:1", dst.Host+"/app:1")
		started, done := make(chan struct{}), make(chan struct{})
		dst.When("", "", nth, testregistry.Do(func(http.ResponseWriter, *http.Request) bool {
			<-started // it may ask before Start returns
			_ = cmd.Process.Kill()
			<-done
			return nth%2 == 0 // what was asked for last is done, or not
		}))
		err := cmd.Start()
		close(started)
		require.NoError(t, err)
		err = cmd.Wait()
		close(done)
		dst.Settled(t)
		raw, ok := dst.Manifest("app", "1")
		require.True(t, ok)
		if digest.FromBytes(raw) == images.index {
			require.True(t, whole(dst), "killed at request %d: the tag is new, and what it names is there", nth)
		} else {
			require.Equal(t, old, raw, "killed at request %d", nth)
		}
		if err == nil { // there were not so many requests
			require.Greater(t, nth, 15)
			break
		}
		killed++
		var have []digest.Digest
		for _, d := range images.blobs {
			if _, ok := dst.Blob("app", d); ok {
				have = append(have, d)
			}
		}
		before := len(dst.Requests())
		out, err := w.command(nil, "copy", src.Host+"/app:1", dst.Host+"/app:1").CombinedOutput()
		require.NoError(t, err, "%s", out)
		raw, _ = dst.Manifest("app", "1")
		require.Equal(t, images.index, digest.FromBytes(raw))
		require.True(t, whole(dst))
		for _, r := range dst.Requests()[before:] {
			for _, d := range have {
				require.False(t, r.Method == "PUT" && strings.Contains(r.Query, d.Encoded()), "%s was there and is sent again", d)
			}
		}
	}
	t.Logf("killed at each of %d requests", killed)
}

// TestLogin_peers holds that logins are the same for us and for the peers: what one keeps, the other finds and shows the registry.
func TestLogin_peers(t *testing.T) {
	r := testregistry.New(t, testregistry.Options{})
	r.Basic("me", "s3cret")
	putImages(t, r, "app", "1", sixPlatforms[:1], func(string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: r.Put("app", []byte("layer")), Size: 5}
	})
	w := who{name: "self", home: t.TempDir()}
	skopeo := tool(t, "skopeo")
	login := func(args ...string) *exec.Cmd {
		cmd := w.command(nil, append([]string{"login", "--username", "me", "--password-stdin"}, args...)...)
		cmd.Stdin = strings.NewReader("s3cret\n")
		return cmd
	}

	ok(t, login(r.Host)) // docker's file
	ok(t, w.other(nil, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+r.Host+"/app:1"))
	ok(t, login("--authfile", w.home+"/auth.json", r.Host))
	assert.Equal(t, "me\n", ok(t, w.other(nil, skopeo, "login", "--get-login", "--authfile", w.home+"/auth.json", r.Host)).stdout)

	ok(t, w.command(nil, "logout", r.Host))
	require.NotZero(t, do(t, w.command(nil, "digest", r.Host+"/app:1")).code)
	ok(t, w.other(nil, skopeo, "login", "--tls-verify=false", "--username", "me", "--password", "s3cret", r.Host)) // podman's file
	ok(t, w.command(nil, "digest", r.Host+"/app:1"))
	assert.Equal(t, "me\n", ok(t, w.command(nil, "login", "--get-login", r.Host)).stdout)
	got := do(t, w.command(nil, "logout", r.Host))
	assert.Contains(t, got.stderr, "still logged in")
}

package serve_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestCollect: what was deleted everywhere is gone from the disk and from the quota, and nothing else.
func TestCollect(t *testing.T) {
	h, host := startServer(t, serve.Options{Dir: t.TempDir(), Limits: serve.Limits{Total: 100_000}})
	a := api{t, "http://" + host}
	kept, gone := randomBytes(t, 30_000), randomBytes(t, 40_000)
	a.put("app", kept)
	a.put("app", gone)
	d, dk := describe(gone).Digest.String(), describe(kept).Digest.String()
	require.Equal(t, 201, a.call("POST", "/v2/other/blobs/uploads/?from=app&mount="+d, nil).status)
	require.Equal(t, 202, a.call("DELETE", "/v2/app/blobs/"+d, nil).status)
	h.Collect()
	assert.Equal(t, "70000", contentBytes(t, h), "another repository has it")
	assert.Equal(t, gone, a.call("GET", "/v2/other/blobs/"+d, nil).body)
	require.Equal(t, 202, a.call("DELETE", "/v2/other/blobs/"+d, nil).status)
	// The registry is full but for that: it makes room by itself.
	a.put("app", randomBytes(t, 60_000))
	assert.Equal(t, "90000", contentBytes(t, h))
	assert.Equal(t, 404, a.call("GET", "/v2/other/blobs/"+d, nil).status)
	assert.Equal(t, 201, a.call("PUT", a.begin("x")+"?digest="+digest.FromString("").String(), nil).status)
	assert.Equal(t, 202, a.call("POST", "/v2/x/blobs/uploads/?from=app&mount="+d, nil).status, "it cannot be mounted any more")
	assert.Equal(t, kept, a.call("GET", "/v2/app/blobs/"+dk, nil).body)

	im := newImage(t, "amd64", 10)
	a.putImage("app", "1", im)
	before := contentBytes(t, h)
	require.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/"+im.desc.Digest.String(), nil).status)
	h.Collect()
	assert.NotEqual(t, before, contentBytes(t, h))
	assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/1", nil).status)
}

// TestCollect_F20_whilePushing: pushes of the same few blobs by many, deletes of them, and collections all the time:
// whatever was answered with 201 and not deleted since is there, whole.
func TestCollect_F20_whilePushing(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	h, host := startServer(t, serve.Options{Dir: t.TempDir()})
	a := api{t, "http://" + host}
	shared := make([]image, 3)
	for i := range shared {
		shared[i] = newImage(t, "amd64", 1000+i)
	}
	send := func(method, path string, body []byte, contentType string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, a.base+path, bytes.NewReader(body))
		if err != nil {
			return 0
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		resp, err := plainClient.Do(req)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		for !done.Load() {
			h.Collect()
		}
	})
	var pushers sync.WaitGroup
	for w := range 4 {
		pushers.Go(func() { // each with a repository of its own, and all with the same blobs
			repo := fmt.Sprintf("r%d", w)
			for n := range rounds {
				im := shared[n%len(shared)]
				for _, b := range [][]byte{im.layer, im.config} {
					d := describe(b).Digest.String()
					status := send("POST", "/v2/"+repo+"/blobs/uploads/?from=r"+fmt.Sprint((w+1)%4)+"&mount="+d, nil, "")
					if status != 201 {
						status = send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, b, "")
					}
					if !assert.Equal(t, 201, status) {
						return
					}
				}
				if !assert.Equal(t, 201, send("PUT", "/v2/"+repo+"/manifests/t", im.raw, im.desc.MediaType), "no blob is unknown that was acknowledged") {
					return
				}
				for _, path := range []string{"/manifests/t", "/manifests/" + im.desc.Digest.String(), "/blobs/" + describe(im.layer).Digest.String(), "/blobs/" + describe(im.config).Digest.String()} {
					if !assert.Equal(t, 200, send("GET", "/v2/"+repo+path, nil, ""), path) {
						return
					}
				}
				for _, path := range []string{"/manifests/" + im.desc.Digest.String(), "/blobs/" + describe(im.layer).Digest.String(), "/blobs/" + describe(im.config).Digest.String()} {
					if !assert.Equal(t, 202, send("DELETE", "/v2/"+repo+path, nil, ""), path) {
						return
					}
				}
			}
		})
	}
	pushers.Wait()
	done.Store(true)
	wg.Wait()
	h.Collect()
	assert.Equal(t, "0", contentBytes(t, h))
}

// TestStore_F20_gcWhilePushing: the store is collected by another process's hand, without any grace, while images are pushed
// to it: every one that was acknowledged is whole.
func TestStore_F20_gcWhilePushing(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir, store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	_, host := startServer(t, serve.Options{Store: s})
	a := api{t, "http://" + host}
	other, err := store.Open(t.Context(), dir, store.Options{})
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Close()) }()
	var wg sync.WaitGroup
	var done atomic.Bool
	collected := 0
	wg.Go(func() {
		for !done.Load() {
			if _, err := other.GC(t.Context(), store.GCOptions{}); !assert.NoError(t, err) {
				return
			}
			collected++
		}
	})
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	for n := range rounds {
		a.putImage("app", fmt.Sprintf("t%d", n), newImage(t, "arm64", 5000))
	}
	done.Store(true)
	wg.Wait()
	assert.Positive(t, collected)
	findings, err := s.Check(t.Context(), store.CheckOptions{ReadData: true})
	require.NoError(t, err)
	assert.Empty(t, findings)
	for n := range rounds {
		assert.Equal(t, 200, a.call("GET", fmt.Sprintf("/v2/app/manifests/t%d", n), nil).status)
	}
}

// TestContent_F17: whatever a client pushes, a browser that is led here shows no page of it, and no header is its.
func TestContent_F17(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		page := []byte("<html><script>alert(1)</script></html>")
		d := describe(page).Digest.String()
		require.Equal(t, 201, a.call("POST", "/v2/app/blobs/uploads/?digest="+d, page, "Content-Type", "text/html").status)
		res := a.call("GET", "/v2/app/blobs/"+d, nil, "Accept", "text/html")
		assert.Equal(t, "application/octet-stream", res.header.Get("Content-Type"))
		assert.Equal(t, "nosniff", res.header.Get("X-Content-Type-Options"))

		im := newImage(t, "amd64", 10)
		a.put("app", im.layer)
		a.put("app", im.config)
		for _, contentType := range []string{"text/html", "text/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml", "", "multipart/form-data; boundary=x"} {
			res := a.call("PUT", "/v2/app/manifests/x", im.raw, "Content-Type", contentType)
			require.Contains(t, []int{201, 400}, res.status, contentType)
			if res.status == 201 {
				got := a.call("GET", "/v2/app/manifests/x", nil, "Accept", "text/html")
				assert.Equal(t, ocispec.MediaTypeImageManifest, got.header.Get("Content-Type"))
				assert.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
			}
		}
		evil := bytes.Replace(im.raw, []byte(ocispec.MediaTypeImageManifest), []byte(`application/vnd.x\r\nSet-Cookie: a=b\r\n+json`), 1)
		assert.Equal(t, 400, a.call("PUT", "/v2/app/manifests/x", evil).status)
		assert.Equal(t, 400, a.call("PUT", "/v2/app/manifests/x", evil, "Content-Type", "application/vnd.x\tSet-Cookie+json").status)
		for _, path := range []string{
			"/v2/app/manifests/%3Cscript%3E", "/v2/%3Cscript%3E/manifests/x", "/v2/app/tags/list?n=%3Cscript%3E", "/v2/app/tags/list?last=%0d%0aSet-Cookie:a=b&n=1",
		} {
			res := a.call("GET", path, nil)
			assert.Equal(t, "application/json", res.header.Get("Content-Type"), path)
			assert.Empty(t, res.header.Get("Set-Cookie"))
			assert.False(t, strings.Contains(string(res.body), "<script>"), "angle brackets are escaped in JSON: %s", res.body)
		}
	})
}

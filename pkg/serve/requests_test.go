package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

// eachAPI runs a test on both backends with plain requests.
func eachAPI(t *testing.T, test func(t *testing.T, a api)) {
	each(t, func(t *testing.T, host string) { test(t, api{t, "http://" + host}) })
}

func TestNames_F01_F02(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "a", "registry")
	a := api{t, "http://" + start(t, serve.Options{Dir: root})}
	before := tree(t, dir)
	d := digest.FromString("x").String()
	for _, repo := range []string{
		"..", ".", "../..", "a/../../b", "%2e%2e", "a%2f..%2fb", "a//b", "/a", "a/", "_uploads", "_blobs", "A", "a/B", "a_", "a..b", "-a", "a b", "a%00b", "a\\b", "%", "a%0ab",
		strings.Repeat("a", 256), strings.Repeat("a/", 200) + "a", "a:b", "a@b", "ü", "a%ffb", "~", "*",
	} {
		for _, path := range []string{"/manifests/x", "/blobs/" + d, "/tags/list", "/referrers/" + d} {
			url := "/v2/" + repo + path
			res, err := rawRequest(t, a.base, "GET "+url+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			require.NoError(t, err)
			assert.Contains(t, []int{400, 404}, res, "GET %q", url)
		}
		res, err := rawRequest(t, a.base, "POST /v2/"+repo+"/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		assert.Contains(t, []int{400, 404}, res, "POST %q", repo)
	}
	for _, bad := range []string{"sha256:../../x", "sha256:", ":", "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("a", 63), "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:%2e%2e%2fx"} {
		res := a.call("GET", "/v2/a/blobs/"+bad, nil)
		assert.Contains(t, []int{400, 404}, res.status, bad)
		res = a.call("PUT", "/v2/a/manifests/"+bad, []byte("{}"))
		assert.Contains(t, []int{400, 404}, res.status, bad)
	}
	for _, bad := range []string{strings.Repeat("x", 129), ".x", "-x", "a%20b", "a*", "ä", "x%00"} {
		res := a.call("PUT", "/v2/a/manifests/"+bad, newImage(t, "amd64", 1).raw, "Content-Type", ocispec.MediaTypeImageManifest)
		assert.Equal(t, 400, res.status, bad)
		assert.Equal(t, []string{"TAG_INVALID"}, res.codes, bad)
		res = a.call("GET", "/v2/a/manifests/"+bad, nil)
		assert.Equal(t, 400, res.status, bad)
	}
	for _, path := range []string{"/", "/v2x", "/v1/", "/v2/a", "/v2/a/b", "/v2/manifests/x", "/v2/blobs/" + d, "/v2/tags/list", "/v2//v2/", "/v2/a/manifests", "/etc/passwd"} {
		assert.Contains(t, []int{400, 404}, a.call("GET", path, nil).status, path)
	}
	assert.Equal(t, before, tree(t, dir), "nothing on disk")

	// Names that look like parts of the API are names.
	im := newImage(t, "amd64", 10)
	for _, repo := range []string{"manifests", "blobs/uploads/x", "a/tags/list", "v2", "a/blobs", "uploads/uploads"} {
		a.putImage(repo, "tags", im)
		assert.Equal(t, 200, a.call("GET", "/v2/"+repo+"/manifests/tags", nil).status, repo)
		assert.Equal(t, 200, a.call("GET", "/v2/"+repo+"/tags/list", nil).status, repo)
	}
}

// rawRequest sends bytes that http.Client would not and returns the status.
func rawRequest(t *testing.T, base, request string) (int, error) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// tree lists what is below a directory, with sizes.
func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		size := fi.Size()
		if fi.IsDir() {
			size = 0
		}
		out[path] = size
		return nil
	}))
	return out
}

func TestUploads_F03_sessions(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := []byte("hello")
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
			res := a.call(method, "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef?digest="+describe(b).Digest.String(), b)
			assert.Equal(t, 404, res.status, method)
			assert.Equal(t, []string{"BLOB_UPLOAD_UNKNOWN"}, res.codes)
		}
		loc := a.begin("a")
		id := loc[strings.LastIndexByte(loc, '/')+1:]
		assert.Len(t, id, 32, "128 bits")
		assert.Equal(t, 404, a.call("PATCH", "/v2/other/blobs/uploads/"+id, b).status, "of another repository")
		assert.Equal(t, 404, a.call("PUT", "/v2/other/blobs/uploads/"+id+"?digest="+describe(b).Digest.String(), b).status)
		assert.Equal(t, 204, a.call("DELETE", loc, nil).status)
		assert.Equal(t, 404, a.call("GET", loc, nil).status)

		loc = a.begin("a")
		assert.Equal(t, 201, a.call("PUT", loc+"?digest="+describe(b).Digest.String(), b).status)
		assert.Equal(t, 404, a.call("PUT", loc+"?digest="+describe(b).Digest.String(), b).status, "it is over")
	})
}

func TestUploads_F06_chunks(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := randomBytes(t, 1000)
		loc := a.begin("a")
		send := func(from, to int, contentRange string) answer {
			return a.call("PATCH", loc, b[from:to], "Content-Range", contentRange, "Content-Type", "application/octet-stream")
		}
		res := send(0, 400, "0-399")
		assert.Equal(t, 202, res.status)
		assert.Equal(t, "0-399", res.header.Get("Range"))
		for name, tc := range map[string]struct {
			from, to int
			rng      string
			status   int
		}{
			"again":                 {0, 400, "0-399", 416},
			"a gap":                 {500, 600, "500-599", 416},
			"an overlap":            {300, 600, "300-599", 416},
			"backwards":             {400, 500, "499-400", 400},
			"lying about its start": {400, 500, "0-99", 416},
			"lying about its end":   {400, 500, "400-999", 416},
			"letters":               {400, 500, "a-b", 400},
			"huge":                  {400, 500, "400-99999999999999999999", 400},
			"negative":              {400, 500, "-5-9", 400},
		} {
			res := send(tc.from, tc.to, tc.rng)
			assert.Equal(t, tc.status, res.status, name)
			if tc.status == 416 {
				assert.Equal(t, "0-399", res.header.Get("Range"), name)
				assert.NotEmpty(t, res.header.Get("Location"), name)
			}
			res = a.call("GET", loc, nil)
			assert.Equal(t, 204, res.status, name)
			assert.Equal(t, "0-399", res.header.Get("Range"), "%s: unchanged", name)
		}
		assert.Equal(t, 202, send(400, 800, "400-799").status)
		if strings.HasSuffix(t.Name(), "directory") {
			// Of unknown length, and not as long as the Content-Range says.
			for _, n := range []int{50, 150} {
				req, err := http.NewRequestWithContext(t.Context(), "PATCH", a.base+loc, io.MultiReader(bytes.NewReader(b[800:800+n])))
				require.NoError(t, err)
				req.Header.Set("Content-Range", "800-899")
				resp, err := plainClient.Do(req)
				require.NoError(t, err)
				_ = resp.Body.Close()
				assert.Equal(t, 400, resp.StatusCode)
				assert.Equal(t, "0-799", a.call("GET", loc, nil).header.Get("Range"))
			}
		}
		// The last piece comes with the PUT.
		bad := a.call("PUT", loc+"?digest="+describe(b).Digest.String(), b[800:], "Content-Range", "700-899")
		assert.Equal(t, 416, bad.status)
		res = a.call("PUT", loc+"?digest="+describe(b).Digest.String(), b[800:], "Content-Range", "800-999")
		require.Equal(t, 201, res.status, "%s", res.body)
		assert.Equal(t, describe(b).Digest.String(), res.header.Get("Docker-Content-Digest"))
		got := a.call("GET", "/v2/a/blobs/"+describe(b).Digest.String(), nil)
		assert.Equal(t, b, got.body)

		// A digest that the bytes do not have.
		loc = a.begin("a")
		res = a.call("PUT", loc+"?digest="+digest.FromString("other").String(), b)
		assert.Equal(t, 400, res.status)
		assert.Equal(t, []string{"DIGEST_INVALID"}, res.codes)
		assert.Equal(t, 404, a.call("HEAD", "/v2/a/blobs/"+digest.FromString("other").String(), nil).status)
		for _, q := range []string{"", "?digest=", "?digest=sha256:x", "?digest=%zz"} {
			assert.Equal(t, 400, a.call("PUT", a.begin("a")+q, b).status, q)
		}
	})
}

// TestUploads_F08 cuts requests short: nothing of them is kept.
func TestUploads_F08_cut(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := randomBytes(t, 1000)
		d := describe(b).Digest.String()
		cut := func(method, path string, contentType string) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(a.base, "http://"))
			require.NoError(t, err)
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n", method, path, contentType)
			_, err = conn.Write(b[:11])
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			_, _ = io.Copy(io.Discard, conn)
			require.NoError(t, conn.Close())
		}
		loc := a.begin("a")
		cut("PATCH", loc, "application/octet-stream")
		res := a.call("GET", loc, nil)
		if res.status == 204 { // the store cannot take back what it has: there the upload is gone
			assert.Equal(t, "0-0", res.header.Get("Range"))
			short := b[:5] // shorter than what was cut
			assert.Equal(t, 201, a.call("PUT", loc+"?digest="+describe(short).Digest.String(), short).status, "from the start")
			assert.Equal(t, short, a.call("GET", "/v2/a/blobs/"+describe(short).Digest.String(), nil).body)
		} else {
			assert.Equal(t, 404, res.status)
		}
		loc = a.begin("b")
		cut("PUT", loc+"?digest="+d, "application/octet-stream")
		assert.Equal(t, 404, a.call("HEAD", "/v2/b/blobs/"+describe(b[:11]).Digest.String(), nil).status)
		cut("PUT", "/v2/b/manifests/x", ocispec.MediaTypeImageManifest)
		assert.Equal(t, 404, a.call("GET", "/v2/b/manifests/x", nil).status)

		// Chunked without an end.
		conn, err := net.Dial("tcp", strings.TrimPrefix(a.base, "http://"))
		require.NoError(t, err)
		loc = a.begin("c")
		fmt.Fprintf(conn, "PUT %s?digest=%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", loc, digest.FromString("hello"))
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		_, _ = io.Copy(io.Discard, conn)
		require.NoError(t, conn.Close())
		assert.Equal(t, 404, a.call("HEAD", "/v2/c/blobs/"+digest.FromString("hello").String(), nil).status)
	})
}

// TestUploads_F04 keeps one upload hanging and uses the registry meanwhile.
func TestUploads_F04_slowOne(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		loc := a.begin("a")
		pr, pw := io.Pipe()
		done := make(chan int)
		go func() {
			req, _ := http.NewRequestWithContext(context.Background(), "PATCH", a.base+loc, pr)
			resp, err := plainClient.Do(req)
			if err != nil {
				done <- 0
				return
			}
			_ = resp.Body.Close()
			done <- resp.StatusCode
		}()
		_, err := pw.Write([]byte("hel"))
		require.NoError(t, err)
		a.putImage("a", "1", newImage(t, "amd64", 10<<10))
		assert.Equal(t, 200, a.call("GET", "/v2/a/manifests/1", nil).status)
		assert.Equal(t, 204, a.call("GET", loc, nil).status, "its status does not wait for it")
		_, err = pw.Write([]byte("lo"))
		require.NoError(t, err)
		require.NoError(t, pw.Close())
		assert.Equal(t, 202, <-done)
		assert.Equal(t, 201, a.call("PUT", loc+"?digest="+digest.FromString("hello").String(), nil).status)
	})
}

func TestUploads_F05_tooMany(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	a := api{t, "http://" + start(t, serve.Options{Dir: dir})}
	first := a.begin("a")
	for i := 0; ; i++ {
		res := a.call("POST", "/v2/a/blobs/uploads/", nil)
		if res.status == 429 {
			assert.Equal(t, []string{"TOOMANYREQUESTS"}, res.codes)
			assert.Greater(t, i, 200, "a builder of many layers is not disturbed")
			break
		}
		require.Equal(t, 202, res.status)
		require.Less(t, i, 2000)
	}
	require.Equal(t, 204, a.call("DELETE", first, nil).status)
	a.begin("a")
}

func TestManifests_F07_F09_F10(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 100)
		a.put("app", im.layer)
		a.put("app", im.config)
		put := func(ref string, body []byte, contentType string) answer {
			return a.call("PUT", "/v2/app/manifests/"+ref, body, "Content-Type", contentType)
		}
		oci := ocispec.MediaTypeImageManifest
		other := newImage(t, "arm64", 200)
		missing := digest.FromString("missing")
		index := func(children ...digest.Digest) []byte {
			var list []string
			for _, c := range children {
				list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, oci, c, len(im.raw)))
			}
			return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, strings.Join(list, ","))
		}
		deep := []byte(`{"schemaVersion":2,"mediaType":"` + oci + `","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`)
		for name, tc := range map[string]struct {
			ref, contentType string
			body             []byte
			status           int
			code             string
		}{
			"F07 by another digest":    {digest.FromString("other").String(), oci, im.raw, 400, "DIGEST_INVALID"},
			"F09 too large":            {"x", oci, append(bytes.Repeat([]byte(" "), 4<<20), im.raw...), 413, "MANIFEST_INVALID"},
			"F09 deep":                 {"x", oci, deep, 400, "MANIFEST_INVALID"},
			"F09 wide":                 {"x", ocispec.MediaTypeImageIndex, index(slices.Repeat([]digest.Digest{missing}, 20000)...), 400, "MANIFEST_INVALID"},
			"B04 ambiguous artifact":   {"x", "application/vnd.example+json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"blobs":[]}`), 400, "MANIFEST_INVALID"},
			"F10 blobs missing":        {"x", oci, other.raw, 400, "MANIFEST_BLOB_UNKNOWN"},
			"F10 a child missing":      {"x", ocispec.MediaTypeImageIndex, index(missing), 400, "MANIFEST_BLOB_UNKNOWN"},
			"B03 another type":         {"x", ocispec.MediaTypeImageIndex, im.raw, 400, "MANIFEST_INVALID"},
			"B04 ambiguous":            {"x", "", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"config":{"digest":%q,"size":1},"layers":[]}`, missing), 400, "MANIFEST_INVALID"},
			"an index that is none":    {"x", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"layers":[]}`), 400, "MANIFEST_INVALID"},
			"an image without config":  {"x", oci, []byte(`{"schemaVersion":2,"layers":[]}`), 400, "MANIFEST_INVALID"},
			"B10 the same key twice":   {"x", oci, bytes.Replace(im.raw, []byte(`{"schemaVersion":2`), []byte(`{"schemaVersion":2,"schemaVersion":2`), 1), 400, "MANIFEST_INVALID"},
			"B10 a key in other case":  {"x", oci, bytes.Replace(im.raw, []byte(`"layers"`), []byte(`"Layers"`), 1), 400, "MANIFEST_INVALID"},
			"B10 two documents":        {"x", oci, append(append([]byte(nil), im.raw...), im.raw...), 400, "MANIFEST_INVALID"},
			"B02 a negative size":      {"x", oci, bytes.Replace(im.raw, []byte(`"size":100`), []byte(`"size":-100`), 1), 400, "MANIFEST_INVALID"},
			"B02 another size":         {"x", oci, bytes.Replace(im.raw, []byte(`"size":100`), []byte(`"size":101`), 1), 400, "MANIFEST_INVALID"},
			"B15 a digest of dots":     {"x", oci, bytes.Replace(im.raw, []byte(describe(im.layer).Digest), []byte("sha256:../../x"), 1), 400, "MANIFEST_INVALID"},
			"B21 schema 1":             {"x", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`), 400, "MANIFEST_INVALID"},
			"F17 a page":               {"x", "text/html", []byte(`<script>alert(1)</script>`), 400, "MANIFEST_INVALID"},
			"F17 a page in a document": {"x", "", []byte(`{"schemaVersion":2,"mediaType":"text/html","manifests":[]}`), 400, "MANIFEST_INVALID"},
			"empty":                    {"x", oci, nil, 400, "MANIFEST_INVALID"},
			"not json":                 {"x", oci, []byte("hello"), 400, "MANIFEST_INVALID"},
		} {
			res := put(tc.ref, tc.body, tc.contentType)
			assert.Equal(t, tc.status, res.status, name)
			assert.Equal(t, []string{tc.code}, res.codes, name)
			assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/"+tc.ref, nil).status, "%s: nothing is stored", name)
		}
		// Of unknown length, and endless: the server hangs up at its limit.
		endless, err := http.NewRequestWithContext(t.Context(), "PUT", a.base+"/v2/app/manifests/x", io.MultiReader(bytes.NewReader(im.raw), io.LimitReader(spaces{}, 1<<30)))
		require.NoError(t, err)
		if resp, err := plainClient.Do(endless); err == nil {
			assert.Equal(t, 413, resp.StatusCode)
			_ = resp.Body.Close()
		}
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/x", nil).status)

		require.Equal(t, 201, put("1", im.raw, oci).status)
		require.Equal(t, 201, put("index", index(im.desc.Digest), ocispec.MediaTypeImageIndex).status)
		blobs := bytes.Replace(index(describe(im.layer).Digest), []byte(oci), []byte("application/octet-stream"), 1)
		require.Equal(t, 201, put("cache", blobs, ocispec.MediaTypeImageIndex).status, "an index may name blobs: caches are made so")
		res := a.call("GET", "/v2/app/manifests/index", nil, "Accept", "application/x-something")
		assert.Equal(t, 200, res.status)
		assert.Equal(t, ocispec.MediaTypeImageIndex, res.header.Get("Content-Type"))
		assert.Equal(t, "nosniff", res.header.Get("X-Content-Type-Options"))

		// A manifest that does not say what it is, is what it was pushed as.
		unnamed := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":%d},"layers":[]}`, describe(im.config).Digest, len(im.config))
		require.Equal(t, 201, put("unnamed", unnamed, "application/vnd.docker.distribution.manifest.v2+json").status)
		assert.Equal(t, "application/vnd.docker.distribution.manifest.v2+json", a.call("HEAD", "/v2/app/manifests/unnamed", nil).header.Get("Content-Type"))
	})
	t.Run("sparse", func(t *testing.T) {
		a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Sparse: true})}
		im := newImage(t, "arm64", 100)
		assert.Equal(t, 201, a.call("PUT", "/v2/app/manifests/1", im.raw, "Content-Type", im.desc.MediaType).status)
	})
}

func TestDeletes_F11(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 100)
		a.putImage("app", "1", im)
		a.putImage("app", "2", im)
		a.putImage("other", "1", im)
		at := "/v2/app/manifests/" + im.desc.Digest.String()
		assert.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 404, a.call("DELETE", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 200, a.call("GET", at, nil).status, "a tag is only a name")
		assert.Equal(t, 202, a.call("DELETE", at, nil).status)
		assert.Equal(t, 404, a.call("GET", at, nil).status)
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/1", nil).status, "and its tags")
		assert.Equal(t, 404, a.call("DELETE", at, nil).status)
		if res := a.call("GET", "/v2/app/tags/list", nil); res.status == 200 {
			assert.JSONEq(t, `{"name":"app","tags":[]}`, string(res.body))
		}
		assert.Equal(t, 200, a.call("GET", "/v2/other/manifests/1", nil).status, "another repository has its own")
		a.putImage("app", "1", im)
		assert.Equal(t, 200, a.call("GET", at, nil).status, "pushed again")
		assert.Equal(t, 404, a.call("DELETE", "/v2/nobody/manifests/1", nil).status)
	})
	t.Run("blobs", func(t *testing.T) {
		dir := t.TempDir()
		o := serve.Options{Dir: dir}
		h, err := serve.Handler(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, h.Close())
		host := start(t, o)
		a := api{t, "http://" + host}
		b := randomBytes(t, 100)
		path := "/v2/app/blobs/" + describe(b).Digest.String()
		a.put("app", b)
		a.put("other", b)
		assert.Equal(t, 202, a.call("DELETE", path, nil).status)
		assert.Equal(t, 404, a.call("HEAD", path, nil).status)
		assert.Equal(t, 404, a.call("DELETE", path, nil).status)
		assert.Equal(t, 200, a.call("HEAD", "/v2/other/blobs/"+describe(b).Digest.String(), nil).status)
	})
}

func TestManifests_ifMatch(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		one, two := newImage(t, "amd64", 10), newImage(t, "arm64", 20)
		a.putImage("app", "x", one)
		a.put("app", two.layer)
		a.put("app", two.config)
		put := func(im image, header ...string) int {
			return a.call("PUT", "/v2/app/manifests/x", im.raw, append(header, "Content-Type", im.desc.MediaType)...).status
		}
		etag := a.call("HEAD", "/v2/app/manifests/x", nil).header.Get("ETag")
		assert.Equal(t, `"`+one.desc.Digest.String()+`"`, etag)
		assert.Equal(t, 412, put(two, "If-Match", `"`+two.desc.Digest.String()+`"`))
		assert.Equal(t, 412, put(two, "If-None-Match", `*`))
		assert.Equal(t, 412, put(two, "If-Match", `W/`+etag), "a weak comparison does not do")
		assert.Equal(t, etag, a.call("HEAD", "/v2/app/manifests/x", nil).header.Get("ETag"))
		assert.Equal(t, 201, put(two, "If-Match", etag))
		assert.Equal(t, 412, put(one, "If-Match", etag))
		assert.Equal(t, 201, put(one, "If-Match", "*"))
		assert.Equal(t, 412, a.call("DELETE", "/v2/app/manifests/x", nil, "If-Match", `"`+two.desc.Digest.String()+`"`).status)
		assert.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/x", nil, "If-Match", etag).status)
		assert.Equal(t, 412, put(one, "If-Match", "*"), "nothing matches nothing")
		assert.Equal(t, 201, put(one, "If-None-Match", "*"))
		assert.Equal(t, 304, a.call("GET", "/v2/app/manifests/x", nil, "If-None-Match", etag).status)
	})
	t.Run("of many writers one wins", func(t *testing.T) {
		eachAPI(t, func(t *testing.T, a api) {
			base := newImage(t, "amd64", 10)
			a.putImage("app", "x", base)
			var images []image
			for range 8 {
				im := newImage(t, "arm64", 10)
				a.put("app", im.layer)
				a.put("app", im.config)
				images = append(images, im)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for _, im := range images {
				wg.Go(func() {
					res := a.call("PUT", "/v2/app/manifests/x", im.raw, "Content-Type", im.desc.MediaType, "If-Match", `"`+base.desc.Digest.String()+`"`)
					mu.Lock()
					defer mu.Unlock()
					if res.status == 201 {
						won++
					} else {
						assert.Equal(t, 412, res.status)
					}
				})
			}
			wg.Wait()
			assert.Equal(t, 1, won)
		})
	})
}

// TestTags_F12 reads a tag while many write it.
func TestTags_F12_oneManifestAtATime(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		const writers = 6
		var images []image
		known := map[string]bool{}
		for range writers {
			im := newImage(t, "arm64", 10)
			a.put("app", im.layer)
			a.put("app", im.config)
			images = append(images, im)
			known[string(im.raw)] = true
		}
		a.putImage("app", "x", images[0])
		stop := make(chan struct{})
		var readers, wg sync.WaitGroup
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res := a.call("GET", "/v2/app/manifests/x", nil)
				if !assert.Equal(t, 200, res.status) || !assert.True(t, known[string(res.body)], "not what anybody pushed: %s", res.body) {
					return
				}
				assert.Equal(t, digest.FromBytes(res.body).String(), res.header.Get("Docker-Content-Digest"))
			}
		})
		for _, im := range images {
			wg.Go(func() {
				for range 3 {
					assert.Equal(t, 201, a.call("PUT", "/v2/app/manifests/x", im.raw, "Content-Type", im.desc.MediaType).status)
				}
			})
		}
		wg.Wait()
		close(stop)
		readers.Wait()
	})
}

func TestLists_F14(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		for _, tag := range []string{"b", "A", "c", "a", "B", "_x", "1.0"} {
			a.putImage("app", tag, im)
		}
		a.putImage("zoo/x", "1", im)
		tags := func(query string) (int, []string, string) {
			res := a.call("GET", "/v2/app/tags/list"+query, nil)
			var doc struct {
				Name string
				Tags []string
			}
			if res.status == 200 {
				require.NoError(t, json.Unmarshal(res.body, &doc))
				assert.Equal(t, "app", doc.Name)
				assert.NotNil(t, doc.Tags)
			}
			return res.status, doc.Tags, res.header.Get("Link")
		}
		all := []string{"1.0", "_x", "A", "a", "B", "b", "c"}
		_, got, link := tags("")
		assert.Equal(t, all, got)
		assert.Empty(t, link)
		_, got, link = tags("?n=3")
		assert.Equal(t, all[:3], got)
		assert.Equal(t, `</v2/app/tags/list?last=A&n=3>; rel="next"`, link)
		_, got, link = tags("?n=3&last=A")
		assert.Equal(t, all[3:6], got)
		assert.NotEmpty(t, link)
		_, got, link = tags("?n=3&last=b")
		assert.Equal(t, all[6:], got)
		assert.Empty(t, link)
		_, got, link = tags("?n=7")
		assert.Equal(t, all, got)
		assert.Empty(t, link)
		_, got, _ = tags("?n=0")
		assert.Empty(t, got)
		_, got, _ = tags("?last=zzz")
		assert.Empty(t, got)
		_, got, _ = tags("?last=Aa") // no such tag: what follows it
		assert.Equal(t, all[4:], got)
		_, got, _ = tags("?n=1000000000000000000000000000")
		assert.Equal(t, all, got)
		for _, bad := range []string{"?n=-1", "?n=x", "?n=", "?n=1.5", "?n=%zz", "?n=+1", "?n=0x10"} {
			code, _, _ := tags(bad)
			assert.Equal(t, 400, code, bad)
		}
		code, _, _ := tags("?n=1&last=" + strings.Repeat("x", 5000))
		assert.Equal(t, 200, code)
		assert.Equal(t, 404, a.call("GET", "/v2/nobody/tags/list", nil).status)

		res := a.call("GET", "/v2/_catalog", nil)
		assert.JSONEq(t, `{"repositories":["app","zoo/x"]}`, string(res.body))
		res = a.call("GET", "/v2/_catalog?n=1", nil)
		assert.JSONEq(t, `{"repositories":["app"]}`, string(res.body))
		assert.Equal(t, `</v2/_catalog?last=app&n=1>; rel="next"`, res.header.Get("Link"))
		assert.Equal(t, 400, a.call("GET", "/v2/_catalog?n=-1", nil).status)
	})
}

func TestBlobs_F15_ranges(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := randomBytes(t, 1000)
		a.put("app", b)
		path := "/v2/app/blobs/" + describe(b).Digest.String()
		for rng, tc := range map[string]struct {
			status int
			want   []byte
		}{
			"":                            {200, b},
			"bytes=0-":                    {206, b},
			"bytes=0-0":                   {206, b[:1]},
			"bytes=100-199":               {206, b[100:200]},
			"bytes=990-5000":              {206, b[990:]},
			"bytes=-5":                    {206, b[995:]},
			"bytes=-5000":                 {206, b},
			"bytes=1000-":                 {416, nil},
			"bytes=5-2":                   {416, nil},
			"bytes=-":                     {416, nil},
			"bytes=a-b":                   {416, nil},
			"bytes=99999999999999999999-": {416, nil},
			"lines=1-2":                   {416, nil},
		} {
			res := call{"GET", a.base + path, nil, map[string]string{"Range": rng}}
			req, err := http.NewRequestWithContext(t.Context(), "GET", res.url, nil)
			require.NoError(t, err)
			if rng != "" {
				req.Header.Set("Range", rng)
			}
			resp, err := plainClient.Do(req)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			_ = resp.Body.Close()
			assert.Equal(t, tc.status, resp.StatusCode, rng)
			if tc.want != nil {
				assert.Equal(t, tc.want, got, rng)
				assert.Equal(t, "application/octet-stream", resp.Header.Get("Content-Type"))
				assert.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
			}
		}
		res := a.call("HEAD", path, nil)
		assert.Equal(t, 200, res.status)
		assert.Equal(t, "1000", res.header.Get("Content-Length"))
		assert.Equal(t, describe(b).Digest.String(), res.header.Get("Docker-Content-Digest"))
		assert.Equal(t, 404, a.call("GET", "/v2/app/blobs/"+digest.FromString("x").String(), nil).status)
	})
}

func TestReferrers_F21(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		a.putImage("app", "1", im)
		empty := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
		of := func(d digest.Digest, query string) answer {
			return a.call("GET", "/v2/app/referrers/"+d.String()+query, nil)
		}
		res := of(im.desc.Digest, "")
		assert.Equal(t, 200, res.status)
		assert.JSONEq(t, empty, string(res.body))
		assert.Equal(t, ocispec.MediaTypeImageIndex, res.header.Get("Content-Type"))
		assert.JSONEq(t, empty, string(a.call("GET", "/v2/nobody/referrers/"+im.desc.Digest.String(), nil).body))
		assert.Equal(t, 400, a.call("GET", "/v2/app/referrers/sha256:x", nil).status)

		artifact := func(kind string, subject digest.Digest) []byte {
			return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"k":%q}}`,
				ocispec.MediaTypeImageManifest, kind, describe(im.config).Digest, len(im.config), ocispec.MediaTypeImageManifest, subject, kind)
		}
		var put []digest.Digest
		for _, kind := range []string{"text/sbom", "text/signature"} {
			raw := artifact(kind, im.desc.Digest)
			res := a.call("PUT", "/v2/app/manifests/"+digest.FromBytes(raw).String(), raw, "Content-Type", ocispec.MediaTypeImageManifest)
			require.Equal(t, 201, res.status, "%s", res.body)
			assert.Equal(t, im.desc.Digest.String(), res.header.Get("OCI-Subject"))
			put = append(put, digest.FromBytes(raw))
		}
		// A subject that is not there yet.
		later := digest.FromString("later")
		raw := artifact("text/early", later)
		require.Equal(t, 201, a.call("PUT", "/v2/app/manifests/early", raw, "Content-Type", ocispec.MediaTypeImageManifest).status)

		list := func(res answer) (kinds []string) {
			var idx ocispec.Index
			require.NoError(t, json.Unmarshal(res.body, &idx))
			for _, m := range idx.Manifests {
				kinds = append(kinds, m.ArtifactType)
				assert.Equal(t, m.ArtifactType, m.Annotations["k"])
				assert.NotZero(t, m.Size)
			}
			return kinds
		}
		assert.ElementsMatch(t, []string{"text/sbom", "text/signature"}, list(of(im.desc.Digest, "")))
		assert.Equal(t, []string{"text/early"}, list(of(later, "")))
		res = of(im.desc.Digest, "?artifactType=text/sbom")
		assert.Equal(t, []string{"text/sbom"}, list(res))
		assert.Equal(t, "artifactType", res.header.Get("OCI-Filters-Applied"))
		assert.Empty(t, list(of(im.desc.Digest, "?artifactType=text/none")))
		require.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/"+put[0].String(), nil).status)
		assert.Equal(t, []string{"text/signature"}, list(of(im.desc.Digest, "")))
		require.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/"+put[1].String(), nil).status)
		assert.Empty(t, list(of(im.desc.Digest, "")))
	})
}

func TestTagParameter(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		a.put("app", im.layer)
		a.put("app", im.config)
		at := "/v2/app/manifests/" + im.desc.Digest.String()
		res := a.call("PUT", at+"?tag=a&tag=b", im.raw, "Content-Type", im.desc.MediaType)
		require.Equal(t, 201, res.status)
		assert.Equal(t, []string{"a", "b"}, res.header.Values("OCI-Tag"))
		assert.JSONEq(t, `{"name":"app","tags":["a","b"]}`, string(a.call("GET", "/v2/app/tags/list", nil).body))
		assert.Equal(t, 400, a.call("PUT", at+"?tag=ok&tag=../x", im.raw, "Content-Type", im.desc.MediaType).status)
		assert.Equal(t, 400, a.call("PUT", at+"?"+strings.Repeat("tag=x&", 101), im.raw, "Content-Type", im.desc.MediaType).status)
		assert.JSONEq(t, `{"name":"app","tags":["a","b"]}`, string(a.call("GET", "/v2/app/tags/list", nil).body))
	})
}

func TestMounts(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := randomBytes(t, 100)
		d := describe(b).Digest.String()
		a.put("src", b)
		res := a.call("POST", "/v2/dst/blobs/uploads/?mount="+d+"&from=src", nil)
		assert.Equal(t, 201, res.status)
		assert.Equal(t, "/v2/dst/blobs/"+d, res.header.Get("Location"))
		assert.Equal(t, b, a.call("GET", "/v2/dst/blobs/"+d, nil).body)
		assert.Equal(t, 201, a.call("POST", "/v2/anon/blobs/uploads/?mount="+d, nil).status)
		none := digest.FromString("none").String()
		assert.Equal(t, 202, a.call("POST", "/v2/dst/blobs/uploads/?mount="+none+"&from=src", nil).status)
		assert.Equal(t, 202, a.call("POST", "/v2/dst/blobs/uploads/?mount="+none, nil).status)
		assert.Equal(t, 202, a.call("POST", "/v2/dst/blobs/uploads/?mount="+d+"&from=..", nil).status, "a source that cannot be is a missing one")
		assert.Equal(t, 400, a.call("POST", "/v2/dst/blobs/uploads/?mount=sha256:x&from=src", nil).status)
	})
	t.Run("another repository's blob needs its name", func(t *testing.T) {
		a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir()})}
		b := randomBytes(t, 100)
		a.put("src", b)
		assert.Equal(t, 404, a.call("HEAD", "/v2/dst/blobs/"+describe(b).Digest.String(), nil).status)
		assert.Equal(t, 202, a.call("POST", "/v2/dst/blobs/uploads/?mount="+describe(b).Digest.String()+"&from=wrong", nil).status)
	})
}

func TestMethods_F13_F24_readOnly(t *testing.T) {
	d := digest.FromString("x").String()
	paths := map[string][]string{ // path: what it allows
		"/v2/":                      {"GET"},
		"/v2/_catalog":              {"GET"},
		"/v2/app/tags/list":         {"GET"},
		"/v2/app/manifests/1":       {"GET", "PUT", "DELETE"},
		"/v2/app/blobs/" + d:        {"GET", "DELETE"},
		"/v2/app/blobs/uploads/":    {"POST"},
		"/v2/app/blobs/uploads/abc": {"GET", "PUT", "PATCH", "DELETE"},
		"/v2/app/referrers/" + d:    {"GET"},
	}
	methods := []string{"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"}
	allows := func(list []string, m string) bool {
		for _, l := range list {
			if l == m || m == "HEAD" && l == "GET" {
				return true
			}
		}
		return false
	}
	rw := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir()})}
	for path, list := range paths {
		for _, m := range methods {
			res := rw.call(m, path, nil)
			assert.Equal(t, !allows(list, m), res.status == 405, "%s %s", m, path)
			if res.status == 405 && m != "HEAD" {
				assert.Equal(t, []string{"UNSUPPORTED"}, res.codes)
				assert.Contains(t, res.header.Get("Allow"), list[0])
			}
		}
	}
	assert.Equal(t, 403, rw.call("GET", "/v2/", nil, "Origin", "http://evil.test").status, "a page in a browser")

	dir := t.TempDir()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, h.Close())
	before := tree(t, dir)
	ro := api{t, "http://" + start(t, serve.Options{Dir: dir, ReadOnly: true})}
	for path, list := range paths {
		for _, m := range methods {
			res := ro.call(m, path, nil)
			reads := m == "GET" || m == "HEAD"
			assert.Equal(t, !reads || !allows(list, m), res.status == 405, "%s %s", m, path)
		}
	}
	assert.Contains(t, string(ro.call("PUT", "/v2/app/manifests/1", nil).body), "read-only")
	assert.Equal(t, before, tree(t, dir))
}

// TestProtocol_F16 sends what only attackers send.
func TestProtocol_F16(t *testing.T) {
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir()})}
	for name, tc := range map[string]struct {
		request string
		want    []int
	}{
		"TE and CL":         {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 202}},
		"two CL":            {"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", []int{400}},
		"TE of nonsense":    {"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\nhello", []int{400, 501}},
		"HTTP/1.0":          {"GET /v2/ HTTP/1.0\r\n\r\n", []int{200}},
		"absolute":          {"GET http://evil.test/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", []int{200}},
		"CONNECT":           {"CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 404, 405}},
		"no Host":           {"GET /v2/ HTTP/1.1\r\n\r\n", []int{400}},
		"Expect":            {"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 200-maybe\r\n\r\nhello", []int{417, 400}},
		"a huge header":     {"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", []int{431}},
		"a star":            {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", []int{200, 400, 404, 405}},
		"a line break":      {"GET /v2/\nX: y HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		"a negative length": {"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			status, err := rawRequest(t, a.base, tc.request)
			if err != nil && name == "a huge header" { // the server hung up while we still sent
				return
			}
			require.NoError(t, err)
			assert.Contains(t, tc.want, status)
		})
	}
}

func TestBase(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		for _, path := range []string{"/v2/", "/v2"} {
			res := a.call("GET", path, nil)
			assert.Equal(t, 200, res.status)
			assert.JSONEq(t, "{}", string(res.body))
			assert.Equal(t, "registry/2.0", res.header.Get("Docker-Distribution-Api-Version"))
		}
		assert.JSONEq(t, `{"repositories":[]}`, string(a.call("GET", "/v2/_catalog", nil).body))
	})
}

package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

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

package serve_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

// contentBytes is what the metrics say about content.
func contentBytes(t *testing.T, h *serve.Server) string {
	t.Helper()
	for line := range strings.SplitSeq(scrape(t, h), "\n") {
		if v, ok := strings.CutPrefix(line, "manifestctl_registry_content_bytes "); ok {
			return v
		}
	}
	require.Fail(t, "no such metric")
	return ""
}

// TestLimits_F05_quota fills a registry to its limit: what would pass it is refused,
// costs nothing, and what had been there is still there.
func TestLimits_F05_quota(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			h0, err := serve.Handler(t.Context(), o)
			require.NoError(t, err)
			base := contentBytes(t, h0)
			require.NoError(t, h0.Close())
			var had int64
			_, err = fmt.Sscan(base, &had)
			require.NoError(t, err)
			o.Limits.Total = had + 130_000
			h, host := startServer(t, o)
			a := api{t, "http://" + host}

			first := randomBytes(t, 60_000)
			a.put("app", first)
			assert.Equal(t, fmt.Sprint(had+60_000), contentBytes(t, h))
			// A second time, and in another repository, the same bytes cost nothing in the end.
			a.put("app", first)
			require.Equal(t, 201, a.call("POST", "/v2/other/blobs/uploads/?from=app&mount="+describe(first).Digest.String(), nil).status)
			assert.Equal(t, fmt.Sprint(had+60_000), contentBytes(t, h))

			second := randomBytes(t, 80_000)
			d := describe(second).Digest.String()
			denied := func(res answer) {
				t.Helper()
				assert.Equal(t, 403, res.status)
				assert.Equal(t, []string{"DENIED"}, res.codes)
				assert.Contains(t, string(res.body), "full")
			}
			denied(a.call("PUT", a.begin("app")+"?digest="+d, second))
			denied(a.call("POST", "/v2/app/blobs/uploads/?digest="+d, second))
			// Of unknown length: it is found out on the way.
			req, err := http.NewRequestWithContext(t.Context(), "PATCH", a.base+a.begin("app"), io.MultiReader(strings.NewReader(string(second))))
			require.NoError(t, err)
			req.ContentLength = -1
			resp, err := plainClient.Do(req)
			require.NoError(t, err)
			assert.Equal(t, 403, resp.StatusCode)
			_ = resp.Body.Close()
			assert.Equal(t, 404, a.call("HEAD", "/v2/app/blobs/"+d, nil).status)
			assert.Equal(t, fmt.Sprint(had+60_000), contentBytes(t, h))

			// An upload that is given up gives its bytes back; a mismatch, too.
			third := randomBytes(t, 30_000)
			loc := a.begin("app")
			require.Equal(t, 202, a.call("PATCH", loc, third).status)
			assert.Equal(t, fmt.Sprint(had+90_000), contentBytes(t, h))
			require.Equal(t, 204, a.call("DELETE", loc, nil).status)
			require.Equal(t, 400, a.call("PUT", a.begin("app")+"?digest="+d, third).status)
			assert.Equal(t, fmt.Sprint(had+60_000), contentBytes(t, h))

			a.put("app", third)
			im := newImage(t, "amd64", 1)
			a.put("app", im.layer)
			a.put("app", im.config)
			require.Equal(t, 201, a.call("PUT", "/v2/app/manifests/1", im.raw, "Content-Type", im.desc.MediaType).status)
			for n := 0; ; n++ { // manifests count
				require.Less(t, n, 200)
				big := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d","pad":%q}}`, ocispec.MediaTypeImageIndex, n, strings.Repeat("x", 1000))
				if res := a.call("PUT", "/v2/app/manifests/x", big, "Content-Type", ocispec.MediaTypeImageIndex); res.status != 201 {
					denied(res)
					break
				}
			}
			assert.Equal(t, 200, a.call("GET", "/v2/app/manifests/1", nil).status)
			assert.Equal(t, first, a.call("GET", "/v2/app/blobs/"+describe(first).Digest.String(), nil).body)
		})
	}
}

func TestLimits_sizes(t *testing.T) {
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Limits: serve.Limits{Blob: 1000, Manifest: 2000}})}
	big, fits := randomBytes(t, 1001), randomBytes(t, 1000)
	d := describe(big).Digest.String()
	for name, res := range map[string]answer{
		"put":   a.call("PUT", a.begin("app")+"?digest="+d, big),
		"post":  a.call("POST", "/v2/app/blobs/uploads/?digest="+d, big),
		"patch": a.call("PATCH", a.begin("app"), big),
	} {
		assert.Equal(t, 413, res.status, name)
		assert.Equal(t, []string{"SIZE_INVALID"}, res.codes, name)
	}
	loc := a.begin("app")
	require.Equal(t, 202, a.call("PATCH", loc, fits).status)
	assert.Equal(t, 413, a.call("PATCH", loc, []byte("x")).status, "what was taken counts")
	assert.Equal(t, 201, a.call("PUT", loc+"?digest="+describe(fits).Digest.String(), nil).status, "and stays")

	manifest := func(n int) answer {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"pad":%q}}`, ocispec.MediaTypeImageIndex, strings.Repeat("x", n))
		return a.call("PUT", "/v2/app/manifests/x", raw, "Content-Type", ocispec.MediaTypeImageIndex)
	}
	assert.Equal(t, 201, manifest(1800).status)
	res := manifest(2000)
	assert.Equal(t, 413, res.status)
	assert.Equal(t, []string{"MANIFEST_INVALID"}, res.codes)

	for _, l := range []serve.Limits{{Total: -1}, {Blob: -1}, {Manifest: -1}, {Manifest: 1 << 40}} {
		_, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir(), Limits: l})
		require.ErrorIs(t, err, serve.ErrInvalid)
	}
}

// TestTimeouts_F04_silence: who sends nothing is hung up on, whatever was promised; who sends slowly is not.
func TestTimeouts_F04_silence(t *testing.T) {
	run := running(t, serve.Options{
		Dir:      t.TempDir(),
		Timeouts: serve.Timeouts{Header: 300 * time.Millisecond, Body: 2 * time.Second, Idle: 300 * time.Millisecond},
	})
	for name, request := range map[string]string{
		"nothing":                          "",
		"half a line":                      "GET /v2/ HT",
		"half a header":                    "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-",
		"half a body":                      "PUT /v2/app/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello",
		"half a body of a refused request": "PUT /v2/app/tags/list HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello",
		"half a chunk":                     "PUT /v2/app/manifests/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"idle after a job":                 "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", run.addr)
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, request)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*time.Minute)))
			_, err = io.Copy(io.Discard, conn)
			if err != nil { // hung up hard, which is fine; a deadline of ours is not
				assert.NotErrorIs(t, err, errTimeout, "the server waits for ever")
			}
		})
	}
	t.Run("slow but alive", func(t *testing.T) {
		t.Parallel()
		// Of a server whose other times are long: this side may come late, too.
		run := running(t, serve.Options{
			Dir:      t.TempDir(),
			Timeouts: serve.Timeouts{Header: 2 * time.Minute, Body: 5 * time.Second, Idle: 2 * time.Minute},
		})
		conn, err := net.Dial("tcp", run.addr)
		require.NoError(t, err)
		defer conn.Close()
		body := strings.Repeat("x", 12)
		_, err = fmt.Fprintf(conn, "POST /v2/app/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n", digest.FromString(body))
		require.NoError(t, err)
		for range 12 { // longer than silence may last
			time.Sleep(500 * time.Millisecond)
			_, err = io.WriteString(conn, "x")
			require.NoError(t, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, 201, resp.StatusCode)
		_ = resp.Body.Close()
	})
}

package serve_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
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

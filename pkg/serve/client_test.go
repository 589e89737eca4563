package serve_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// call makes one plain request: what clients of registries never do, too.
type call struct {
	method, url string
	body        []byte
	header      map[string]string
}

type answer struct {
	status int
	header http.Header
	body   []byte
	codes  []string // of the error document
}

func (c call) do(t *testing.T) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, bytes.NewReader(c.body))
	require.NoError(t, err)
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	resp, err := plainClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	var doc struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if a.status >= 400 && c.method != http.MethodHead {
		require.NoError(t, json.Unmarshal(a.body, &doc), "an error is a document: %s", a.body)
		require.NotEmpty(t, doc.Errors)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		for _, e := range doc.Errors {
			a.codes = append(a.codes, e.Code)
		}
	}
	return a
}

// plainClient follows no redirects.
var plainClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// api is a registry and the calls that tests make often.
type api struct {
	t    *testing.T
	base string // http://HOST:PORT
}

func (a api) call(method, path string, body []byte, header ...string) answer {
	a.t.Helper()
	h := map[string]string{}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	url := path
	if strings.HasPrefix(path, "/") {
		url = a.base + path
	}
	return call{method, url, body, h}.do(a.t)
}

// begin opens an upload and returns where it is.
func (a api) begin(repo string) string {
	a.t.Helper()
	res := a.call("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	require.Equal(a.t, http.StatusAccepted, res.status)
	loc := res.header.Get("Location")
	require.NotEmpty(a.t, loc)
	return loc
}

// put uploads a blob in one piece.
func (a api) put(repo string, b []byte) {
	a.t.Helper()
	res := a.call("PUT", a.begin(repo)+"?digest="+describe(b).Digest.String(), b)
	require.Equal(a.t, http.StatusCreated, res.status, "%s", res.body)
}

// putImage uploads an image under a tag.
func (a api) putImage(repo, tag string, im image) {
	a.t.Helper()
	a.put(repo, im.layer)
	a.put(repo, im.config)
	res := a.call("PUT", "/v2/"+repo+"/manifests/"+tag, im.raw, "Content-Type", im.desc.MediaType)
	require.Equal(a.t, http.StatusCreated, res.status, "%s", res.body)
}

package registry_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

func TestChallenges(t *testing.T) {
	type ch struct {
		scheme string
		params map[string]string
	}
	for name, tc := range map[string]struct {
		headers []string
		want    []ch
	}{
		"bearer": {
			[]string{`Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push repository:c:pull"`},
			[]ch{{"bearer", map[string]string{"realm": "https://auth.example/token", "service": "registry", "scope": "repository:a/b:pull,push repository:c:pull"}}},
		},
		"basic":               {[]string{`Basic realm="x y"`}, []ch{{"basic", map[string]string{"realm": "x y"}}}},
		"bare":                {[]string{`Negotiate`}, []ch{{"negotiate", nil}}},
		"two in one":          {[]string{`Basic realm="x", Bearer realm=y ,service = z`}, []ch{{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y", "service": "z"}}}},
		"two headers":         {[]string{`Negotiate`, `BEARER Realm="x"`}, []ch{{"negotiate", nil}, {"bearer", map[string]string{"realm": "x"}}}},
		"escapes":             {[]string{`Bearer realm="a\"b\\c"`}, []ch{{"bearer", map[string]string{"realm": `a"b\c`}}}},
		"first of two values": {[]string{`Bearer realm=a,realm=b`}, []ch{{"bearer", map[string]string{"realm": "a"}}}},
		"an open quote":       {[]string{`Bearer realm="x`}, []ch{{"bearer", nil}}},
		"nothing":             {[]string{""}, nil},
		"only signs":          {[]string{`=,,="`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := registry.Challenges(http.Header{"Www-Authenticate": tc.headers})
			require.Len(t, got, len(tc.want))
			for i, w := range tc.want {
				assert.Equal(t, w.scheme, got[i].Scheme())
				for k, v := range w.params {
					assert.Equal(t, v, got[i].Param(k))
				}
				assert.Empty(t, got[i].Param("other"))
			}
		})
	}
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://x/token",service="s",scope="repository:a:pull"`, `Basic realm=x, Bearer a=b`, `"`, `a="\`, "=", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range registry.Challenges(http.Header{"Www-Authenticate": {s}}) {
			assert.NotEmpty(t, c.Scheme())
			assert.Equal(t, strings.ToLower(c.Scheme()), c.Scheme())
		}
	})
}

func TestSameSite_C02(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"registry-1.docker.io", "auth.docker.io", true},
		{"registry.gitlab.com", "gitlab.com", true},
		{"r.example", "R.example.", true},
		{"registry.digitalocean.com", "api.digitalocean.com", true},
		{"a.corp.co.uk", "b.corp.co.uk", true},
		{"127.0.0.1", "127.0.0.1", true},
		{"[::1]", "[::1]", true},
		{"registry", "registry", true},
		{"a.co.uk", "b.co.uk", false},
		{"co.uk", "b.co.uk", false},
		{"a.github.io", "b.github.io", false},
		{"x.a.github.io", "y.a.github.io", false}, // strict rather than right
		{"a.s3.amazonaws.com", "b.s3.amazonaws.com", false},
		{"a.s3.amazonaws.com", "a.s3.amazonaws.com", true},
		{"a.azurecr.io", "b.azurecr.io", false},
		{"docker.io", "docker.com", false},
		{"10.0.0.1", "10.0.0.2", false},
		{"1.0.0.10", "2.0.0.10", false},
		{"registry", "auth", false},
		{"a.local", "b.local", false},
		{"", "", false},
		{"..", "..a", false},
		{"example.com.evil.test", "example.com", false},
		{"evilexample.com", "example.com", false},
	} {
		assert.Equal(t, tc.want, registry.SameSite(tc.a, tc.b), "%s %s", tc.a, tc.b)
		assert.Equal(t, tc.want, registry.SameSite(tc.b, tc.a), "%s %s", tc.b, tc.a)
	}
}

func TestMergeScopes(t *testing.T) {
	for named, want := range map[string][]string{
		"":                                     {"repository:a:pull,push"},
		"repository:a:pull":                    {"repository:a:pull", "repository:a:pull,push"},
		"repository:a:pull,push,delete":        {"repository:a:pull,push,delete"},
		"repository:a:push,pull":               {"repository:a:push,pull"},
		"repository:a:*":                       {"repository:a:*"},
		"registry:catalog:* repository:b:pull": {"registry:catalog:*", "repository:b:pull", "repository:a:pull,push"},
	} {
		assert.Equal(t, want, registry.MergeScopes(named, "a", "pull,push"), named)
	}
}

func TestContentRange(t *testing.T) {
	for s, want := range map[string][3]int64{
		"bytes 0-9/10": {0, 10, 1}, "bytes 5-9/*": {5, -1, 1}, "bytes 5-9": {}, "5-9/10": {}, "bytes */10": {}, "bytes -5-9/10": {},
		"bytes 5-9/0": {}, "bytes 99999999999999999999-1/2": {}, "": {}, "bytes x-9/10": {}, "bytes 5/10": {},
	} {
		start, total, ok := registry.ContentRange(s)
		if want[2] == 0 {
			assert.False(t, ok, s)
			continue
		}
		assert.True(t, ok, s)
		assert.Equal(t, want[:2], []int64{start, total}, s)
	}
}

func TestUploadRange(t *testing.T) {
	for s, want := range map[string]int64{
		"": 0, "0-0": 0, "0--1": 0, "0-9": 10, "bytes=0-9": 10, "5-9": -1, "0-x": -1, "x": -1, "0-99999999999999999999": -1, "bytes": 0,
	} {
		n, ok := registry.UploadRange(s)
		if want < 0 {
			assert.False(t, ok, s)
		} else {
			assert.True(t, ok, s)
			assert.Equal(t, want, n, s)
		}
	}
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "0-9", "0-0", "bytes=0-9", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if start, total, ok := registry.ContentRange(s); ok {
			assert.GreaterOrEqual(t, start, int64(0))
			assert.True(t, total == -1 || total > 0)
		}
		if n, ok := registry.UploadRange(s); ok {
			assert.GreaterOrEqual(t, n, int64(0))
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/a/tags/list?last=b>; rel="next"`, `<x>; rel=prev, <y>; rel=next`, "<", "<>", `<a>,<b>;rel="next"`, `<http://[::1>; rel="next"`} {
		f.Add(s)
	}
	base, err := url.Parse("https://r.example/v2/a/tags/list")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		u, err := registry.NextPage(&http.Response{Header: http.Header{"Link": {s}}, Request: &http.Request{URL: base}})
		if err == nil && u != nil {
			assert.Contains(t, strings.ToLower(s), "next")
		}
	})
}

func FuzzErrorText(f *testing.F) {
	for _, s := range []string{`{"errors":[{"code":"A","message":"b","detail":{"c":1}}]}`, `{"error":"x","error_description":"y"}`, "plain", "\x1b[31m", `{"errors":[{"message":"\u202e"}]}`} {
		f.Add([]byte(s), "application/json")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		_, text := registry.ErrorText(body, contentType)
		assert.True(t, utf8.ValidString(text))
		assert.LessOrEqual(t, utf8.RuneCountInString(text), 10*601)
		for _, r := range text {
			assert.True(t, unicode.IsPrint(r), "%U", r)
		}
	})
}

func FuzzMediaType(f *testing.F) {
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add("application/json; charset=utf-8", imageManifest("x"))
	f.Add("text/html", []byte("<html>"))
	f.Add("", []byte("{}"))
	f.Fuzz(func(t *testing.T, contentType string, raw []byte) {
		mt, err := registry.MediaType(contentType, raw)
		assert.Equal(t, err == nil, mt != "")
	})
}

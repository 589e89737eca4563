package testregistry

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// Basic makes the registry want a user and password for everything.
func (r *Registry) Basic(user, pass string) {
	r.When("", "/v2/", 0, Do(func(w http.ResponseWriter, req *http.Request) bool {
		if u, p, ok := req.BasicAuth(); ok && u == user && p == pass {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return true
	}))
}

// Bearer makes the registry want a token of its own realm, which gives one, for what was asked, to a user with a password
// and for pulling to everybody.
func (r *Registry) Bearer(user, pass string) {
	seal := func(scope string) string { return base64.RawURLEncoding.EncodeToString([]byte(r.Host + " " + scope)) }
	r.When("", "/token", 0, Do(func(w http.ResponseWriter, req *http.Request) bool {
		u, p, given := req.BasicAuth()
		scope := strings.Join(req.URL.Query()["scope"], " ")
		if given && (u != user || p != pass) || !given && strings.Contains(scope, "push") {
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return true
		}
		fmt.Fprintf(w, `{"token":%q}`, seal(scope))
		return true
	}))
	r.When("", "/v2/", 0, Do(func(w http.ResponseWriter, req *http.Request) bool {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
		scope := wants(req)
		host, granted, _ := strings.Cut(string(raw), " ")
		if err == nil && host == r.Host && (scope == "" || covers(granted, scope)) {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope=%q`, r.URL(), scope))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return true
	}))
}

// wants is the scope of a request; "": none.
func wants(req *http.Request) string {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	for _, cut := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if repo, _, ok := strings.Cut(path, cut); ok {
			if req.Method == http.MethodGet || req.Method == http.MethodHead {
				return "repository:" + repo + ":pull"
			}
			return "repository:" + repo + ":pull,push"
		}
	}
	return ""
}

func covers(granted, scope string) bool {
	for g := range strings.FieldsSeq(granted) {
		if g == scope || g == scope+",push" || strings.HasPrefix(g, scope+",") {
			return true
		}
	}
	return false
}

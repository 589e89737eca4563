package serve_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
)

// userFile writes a file of users whose passwords are their names backwards.
func userFile(t *testing.T, names ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "htpasswd")
	writeUsers(t, name, names...)
	return name
}

func writeUsers(t *testing.T, file string, names ...string) {
	t.Helper()
	text := "# users\n\n"
	for _, n := range names {
		hash, err := bcrypt.GenerateFromPassword([]byte(password(n)), bcrypt.MinCost)
		require.NoError(t, err)
		text += n + ":" + string(hash) + "\n"
	}
	tmp := file + ".new"
	require.NoError(t, os.WriteFile(tmp, []byte(text), 0o600))
	require.NoError(t, os.Rename(tmp, file))
}

func password(name string) string {
	var b strings.Builder
	for i := len(name) - 1; i >= 0; i-- {
		b.WriteByte(name[i])
	}
	return b.String()
}

// as makes a request with a name and password.
func (a api) as(user, pass, method, path string, body []byte, header ...string) answer {
	a.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://x", nil)
	require.NoError(a.t, err)
	req.SetBasicAuth(user, pass)
	return a.call(method, path, body, append(header, "Authorization", req.Header.Get("Authorization"))...)
}

// matrix is every endpoint, and for each method what it does.
func matrix(im image) map[string]map[string]string {
	d := im.desc.Digest.String()
	blob := describe(im.layer).Digest.String()
	id := strings.Repeat("0", 32)
	return map[string]map[string]string{
		"/v2":                           {"GET": "read"},
		"/v2/":                          {"GET": "read"},
		"/v2/_catalog":                  {"GET": "read"},
		"/v2/app/tags/list":             {"GET": "read"},
		"/v2/app/manifests/latest":      {"GET": "read", "PUT": "write", "DELETE": "write"},
		"/v2/app/manifests/" + d:        {"GET": "read", "PUT": "write", "DELETE": "write"},
		"/v2/app/blobs/" + blob:         {"GET": "read", "DELETE": "write"},
		"/v2/app/blobs/uploads/":        {"POST": "write"},
		"/v2/app/blobs/uploads":         {"POST": "write"},
		"/v2/app/blobs/uploads/" + id:   {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "write"},
		"/v2/app/referrers/" + d:        {"GET": "read"},
		"/v2/Bad/manifests/latest":      {},
		"/v2/app/manifests/latest/":     {},
		"//v2/app/manifests/latest":     {},
		"/V2/app/manifests/latest":      {},
		"/v2/app/./manifests/latest":    {},
		"/v2/app/x/../manifests/latest": {},
		"/v2/app%2fx/manifests/latest":  {"GET": "read", "PUT": "write", "DELETE": "write"},
		"/metrics":                      {},
		"/debug/pprof/":                 {},
	}
}

// TestAccess_F13_matrix asks everything of everybody: method, path and role. Who may
// not do something gets the same answer whether the thing exists or not.
func TestAccess_F13_matrix(t *testing.T) {
	type role struct {
		name, user, pass string
		read, write      bool
	}
	for name, tc := range map[string]struct {
		anonymous bool
		roles     []role
	}{
		"users only": {false, []role{
			{"nobody", "", "", false, false},
			{"reader", "reader", "redaer", true, false},
			{"writer", "writer", "retirw", true, true},
			{"wrong password", "writer", "retir", false, false},
			{"no password", "writer", "", false, false},
			{"long password", "writer", strings.Repeat("x", 100), false, false},
			{"no such user", "eve", "eve", false, false},
			{"case", "Writer", "retirw", false, false},
		}},
		"anonymous read": {true, []role{
			{"nobody", "", "", true, false},
			{"reader", "reader", "redaer", true, false},
			{"writer", "writer", "retirw", true, true},
			{"wrong password", "writer", "retir", false, false},
			{"no such user", "eve", "eve", false, false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := api{t, "http://" + start(t, serve.Options{
				Dir: t.TempDir(), Users: userFile(t, "reader", "writer"), Writers: []string{"writer"}, AnonymousRead: tc.anonymous,
			})}
			im := newImage(t, "amd64", 100)
			for _, r := range tc.roles {
				for path, does := range matrix(im) {
					for _, method := range []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"} {
						var res answer
						if r.user == "" {
							res = a.call(method, path, nil)
						} else {
							res = a.as(r.user, r.pass, method, path, nil)
						}
						what := fmt.Sprintf("%s: %s %s: %d", r.name, method, path, res.status)
						reads := method == "GET" || method == "HEAD"
						allowed := reads && r.read || r.write
						switch {
						case !allowed && r.read && r.user != "": // known, without the right
							assert.Equal(t, 403, res.status, what)
						case !allowed:
							assert.Equal(t, 401, res.status, what)
							assert.Equal(t, `Basic realm="manifestctl", charset="UTF-8"`, res.header.Get("WWW-Authenticate"), what)
						default:
							assert.NotContains(t, []int{401, 403}, res.status, what)
							as := method
							if as == "HEAD" {
								as = "GET"
							}
							if len(does) == 0 {
								assert.Contains(t, []int{400, 404}, res.status, what)
							} else {
								assert.Equal(t, does[as] == "", res.status == 405, what)
							}
						}
					}
				}
			}
		})
	}
}

// TestAccess_F03_sessionOfAnother tries to write to an upload that another user began.
func TestAccess_F03_sessionOfAnother(t *testing.T) {
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Users: userFile(t, "alice", "bob")})}
	res := a.as("alice", "ecila", "POST", "/v2/app/blobs/uploads/", nil)
	require.Equal(t, 202, res.status)
	loc := res.header.Get("Location")
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		path := loc
		if method == "PUT" {
			path += "?digest=" + digest.FromString("x").String()
		}
		res := a.as("bob", "bob", method, path, []byte("x"))
		assert.Equal(t, 404, res.status, method)
		assert.Equal(t, []string{"BLOB_UPLOAD_UNKNOWN"}, res.codes)
	}
	assert.Equal(t, 201, a.as("alice", "ecila", "PUT", loc+"?digest="+digest.FromString("x").String(), []byte("x")).status)
}

// TestAccess_mount: whoever may push may read, so that a mount gives nothing away.
func TestAccess_mount(t *testing.T) {
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Users: userFile(t, "reader", "writer"), Writers: []string{"writer"}, AnonymousRead: true})}
	b := []byte("secret")
	d := describe(b).Digest.String()
	require.Equal(t, 201, a.as("writer", "retirw", "POST", "/v2/one/blobs/uploads/?digest="+d, b).status)
	mount := "/v2/two/blobs/uploads/?from=one&mount=" + d
	assert.Equal(t, 401, a.call("POST", mount, nil).status)
	assert.Equal(t, 403, a.as("reader", "redaer", "POST", mount, nil).status)
	assert.Equal(t, 404, a.call("GET", "/v2/two/blobs/"+d, nil).status)
	assert.Equal(t, 201, a.as("writer", "retirw", "POST", mount, nil).status)
}

// TestAccess_reload: users come and go without a restart, and a broken file changes nothing.
func TestAccess_reload(t *testing.T) {
	file := userFile(t, "alice", "bob")
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Users: file})}
	status := func(user string) int { return a.as(user, password(user), "GET", "/v2/", nil).status }
	assert.Equal(t, 200, status("alice"))
	assert.Equal(t, 200, status("bob"))
	assert.Equal(t, 401, status("carol"))
	writeUsers(t, file, "alice", "carol")
	require.Eventually(t, func() bool { return status("carol") == 200 }, time.Minute, 50*time.Millisecond)
	assert.Equal(t, 401, status("bob"), "also when his password had been checked before")
	require.NoError(t, os.WriteFile(file, []byte("alice:plain\n"), 0o600))
	time.Sleep(1100 * time.Millisecond)
	assert.Equal(t, 200, status("alice"))
	require.NoError(t, os.Remove(file))
	time.Sleep(1100 * time.Millisecond)
	assert.Equal(t, 200, status("alice"))
}

// TestAccess_clients: our client and its keychain, with a name and without.
func TestAccess_clients(t *testing.T) {
	host := start(t, serve.Options{Dir: t.TempDir(), Users: userFile(t, "writer"), AnonymousRead: true})
	im := newImage(t, "amd64", 1000)
	r := mustParse(t, host+"/app:1")
	_, err := registry.New(registry.Options{}).PushBlob(t.Context(), r, describe(im.layer), opener(im.layer), nil)
	require.ErrorIs(t, err, registry.ErrDenied)
	im.push(t, registry.New(registry.Options{Keychain: fixed{"writer", "retirw"}}), r)
	desc, err := registry.New(registry.Options{}).Resolve(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, im.desc, desc)
}

func TestAccess_refusedAtTheStart(t *testing.T) {
	good, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		text string
		o    serve.Options
	}{
		"no colon":       {text: "alice"},
		"no name":        {text: ":" + string(good)},
		"plain":          {text: "alice:secret"},
		"md5":            {text: "alice:$apr1$abcdefgh$AAAAAAAAAAAAAAAAAAAAA/"},
		"sha":            {text: "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="},
		"cut":            {text: "alice:" + string(good[:59])},
		"too costly":     {text: "alice:" + strings.Replace(string(good), "$04$", "$31$", 1)},
		"twice":          {text: "alice:" + string(good) + "\nalice:" + string(good)},
		"unknown writer": {text: "alice:" + string(good), o: serve.Options{Writers: []string{"bob"}}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.Dir, tc.o.Users = t.TempDir(), filepath.Join(t.TempDir(), "htpasswd")
			require.NoError(t, os.WriteFile(tc.o.Users, []byte(tc.text), 0o600))
			_, err := serve.Handler(t.Context(), tc.o)
			require.ErrorIs(t, err, serve.ErrInvalid)
		})
	}
	_, err = serve.Handler(t.Context(), serve.Options{Dir: t.TempDir(), Users: filepath.Join(t.TempDir(), "none")})
	require.ErrorIs(t, err, serve.ErrInvalid)
	_, err = serve.Handler(t.Context(), serve.Options{Dir: t.TempDir(), AnonymousRead: true})
	require.ErrorIs(t, err, serve.ErrInvalid)
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("alice:$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n"))
	f.Add([]byte("# x\n\na:b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, err := serve.ParseUsers(data)
		if err != nil {
			return
		}
		for name, hash := range users {
			require.NotEmpty(t, name)
			require.Len(t, hash, 60)
		}
	})
}

// fixed is a keychain of one name and password.
type fixed struct{ user, pass string }

func (f fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: f.user, Password: f.pass}, nil
}

package credentials_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/credentials"
)

// helpers puts shell scripts in front of PATH as docker-credential-NAME. Each gets the verb as $1 and the input as $in.
func helpers(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\nin=$(cat)\n"+script+"\n"), 0o700))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func none(string) string { return "" }

func resolve(t *testing.T, k *credentials.Keychain, host, repo string) (authn.AuthConfig, error) {
	t.Helper()
	a, err := k.ResolveContext(t.Context(), res{host, repo})
	if err != nil {
		return authn.AuthConfig{}, err
	}
	cfg, err := a.Authorization()
	require.NoError(t, err)
	return *cfg, nil
}

func TestHelper_C30(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	helpers(t, map[string]string{
		"good":    `echo "$1 $in" >>` + log + `; echo '{"ServerURL":"'"$in"'","Username":"me","Secret":"p"}'`,
		"token":   `echo '{"Username":"<token>","Secret":"refresh"}'`,
		"empty":   `echo "credentials not found in native keychain"; exit 1`,
		"hangs":   `sleep 60`,
		"junk":    `echo '{"Secret":"s3cret"'`,
		"fails":   `echo "no session with the cloud: run cloud login"; exit 3`,
		"spills":  `echo '{"Secret":"s3cret"}'; exit 1`,
		"noisy":   `printf 'bad \033[31m thing'; exit 1`,
		"other":   `echo '{"ServerURL":"https://other.example","Username":"me","Secret":"s3cret"}'`,
		"endless": `head -c 3000000 /dev/zero`,
	})
	config := func(helper string) string {
		store := `"empty"`
		if helper == "hangs" { // nothing else has to answer within its short time
			store = "null"
		}
		return write(t, filepath.Join(t.TempDir(), "auth.json"), `{"auths":{"r.example":{"auth":"`+auth("file", "f")+`"},"public.example":{}},"credHelpers":{"h.example":"`+helper+`"},"credsStore":`+store+`}`)
	}
	for name, tc := range map[string]struct {
		helper string
		want   authn.AuthConfig
		text   string // of the error
	}{
		"answers":                  {"good", authn.AuthConfig{Username: "me", Password: "p"}, ""},
		"an identity token":        {"token", authn.AuthConfig{IdentityToken: "refresh"}, ""},
		"has none":                 {"empty", authn.AuthConfig{}, ""},
		"hangs":                    {"hangs", authn.AuthConfig{}, "did not answer within"},
		"prints junk":              {"junk", authn.AuthConfig{}, "not the JSON document"},
		"fails":                    {"fails", authn.AuthConfig{}, "run cloud login"},
		"fails, and spills":        {"spills", authn.AuthConfig{}, "exit status 1"},
		"fails, for a terminal":    {"noisy", authn.AuthConfig{}, "bad ?[31m thing"},
		"answers for another host": {"other", authn.AuthConfig{}, `answered for "https://other.example"`},
		"is missing":               {"missing", authn.AuthConfig{}, "not on PATH"},
		"has no end":               {"endless", authn.AuthConfig{}, "more than 1048576 bytes"},
		"is a path":                {"../../bin/sh", authn.AuthConfig{}, "not the name of one"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := time.Minute
			if tc.helper == "hangs" {
				timeout = 500 * time.Millisecond
			}
			k := credentials.New(credentials.Options{AuthFile: config(tc.helper), Getenv: none, HelperTimeout: timeout})
			got, err := resolve(t, k, "h.example", "app")
			if tc.text == "" {
				require.NoError(t, err)
				assert.Equal(t, tc.want, got)
				return
			}
			require.ErrorIs(t, err, credentials.ErrHelper)
			assert.Contains(t, err.Error(), tc.text)
			assert.Contains(t, err.Error(), tc.helper, "it is named")
			assert.NotContains(t, err.Error(), "s3cret")
			assert.NotContains(t, err.Error(), "\x1b")
			got, err = resolve(t, k, "r.example", "app")
			require.NoError(t, err, "it does not stand before others")
			assert.Equal(t, "file", got.Username)
		})
	}
	t.Run("asked once", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(log))
		k := credentials.New(credentials.Options{AuthFile: config("good"), Getenv: none})
		for range 3 {
			_, err := resolve(t, k, "h.example", "app")
			require.NoError(t, err)
		}
		said, err := os.ReadFile(log)
		require.NoError(t, err)
		assert.Equal(t, "get h.example\n", string(said))
	})
	t.Run("docker's name of docker.io", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(log))
		file := write(t, filepath.Join(t.TempDir(), "auth.json"), `{"credsStore":"good"}`)
		_, err := resolve(t, credentials.New(credentials.Options{AuthFile: file, Getenv: none}), "index.docker.io", "library/debian")
		require.NoError(t, err)
		said, err := os.ReadFile(log)
		require.NoError(t, err)
		assert.Equal(t, "get https://index.docker.io/v1/\n", string(said))
	})
	t.Run("of registries.conf", func(t *testing.T) {
		k := credentials.New(credentials.Options{Helpers: func() []string { return []string{"empty", "good"} }, Getenv: none})
		got, err := resolve(t, k, "h.example", "app")
		require.NoError(t, err)
		assert.Equal(t, "me", got.Username)
	})
}

func TestGiven(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "auth.json"), `{"auths":{"a.example":{"auth":"`+auth("file", "f")+`"},"b.example":{"auth":"`+auth("file", "f")+`"}}}`)
	k := credentials.New(credentials.Options{AuthFile: file, Getenv: none, Given: []credentials.Given{{Host: "a.example", User: "me", Pass: "p"}}})
	for host, want := range map[string]string{"a.example": "me", "b.example": "file", "c.example": ""} {
		got, err := resolve(t, k, host, "x/y")
		require.NoError(t, err)
		assert.Equal(t, want, got.Username, host)
	}
	_, err := resolve(t, credentials.New(credentials.Options{AuthFile: file + ".missing", Getenv: none}), "a.example", "x")
	require.ErrorIs(t, err, os.ErrNotExist, "a file that is named must be there")
}

func TestLogin_fileAndHelper(t *testing.T) {
	kept := t.TempDir()
	helpers(t, map[string]string{"store": `cd ` + kept + `
name() { printf %s "$1" | tr -c 'a-z0-9.\n' _; }
case $1 in
store) server=$(printf %s "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$in" >"$(name "$server")" ;;
get) cat "$(name "$in")" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm "$(name "$in")" ;;
esac`})
	home := t.TempDir()
	env := map[string]string{"HOME": home}
	k := func() *credentials.Keychain {
		return credentials.New(credentials.Options{Getenv: func(n string) string { return env[n] }})
	}
	ctx := t.Context()
	file := filepath.Join(home, ".docker", "config.json")

	got, err := k().Login(ctx, "R.example:5000", "me", "p:q")
	require.NoError(t, err)
	assert.Equal(t, credentials.Kept{File: file}, got)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	user, where, err := k().Lookup(ctx, "r.example:5000")
	require.NoError(t, err)
	assert.Equal(t, []string{"me", file}, []string{user, where})

	// What else stands in the file stays, also in an entry; an entry of another spelling does not shadow the new one.
	write(t, file, `{"auths":{"docker.io":{"auth":"`+auth("old", "o")+`"},"r.example":{"auth":"x","email":"me@example"}},"HttpHeaders":{"X":"<y>"},"credHelpers":{"h.example":"store"}}`)
	require.NoError(t, os.Chmod(file, 0o644))
	_, err = k().Login(ctx, "docker.io", "me", "p")
	require.NoError(t, err)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.JSONEq(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"`+auth("me", "p")+`"},"r.example":{"auth":"x","email":"me@example"}},"HttpHeaders":{"X":"<y>"},"credHelpers":{"h.example":"store"}}`, string(text))
	info, err = os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "what others could read before")

	got, err = k().Login(ctx, "h.example/team", "me", "s3cret")
	require.NoError(t, err)
	assert.Equal(t, "docker-credential-store", got.Helper)
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "s3cret")
	assert.NotContains(t, string(text), auth("me", "s3cret"))

	_, err = k().Login(ctx, "h.example", "me", "p2")
	require.NoError(t, err)
	cfg, err := resolve(t, k(), "h.example", "x")
	require.NoError(t, err)
	assert.Equal(t, "p2", cfg.Password)
	_, err = k().Logout(ctx, "h.example")
	require.NoError(t, err)
	_, _, err = k().Lookup(ctx, "h.example")
	require.ErrorIs(t, err, credentials.ErrNotFound)
	_, err = k().Logout(ctx, "h.example")
	require.ErrorIs(t, err, credentials.ErrNotFound)

	names, _, err := k().LogoutAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"docker.io", "h.example/team", "r.example"}, names)
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	assert.JSONEq(t, `{"auths":{},"HttpHeaders":{"X":"<y>"},"credHelpers":{"h.example":"store"}}`, string(text))

	t.Run("refused", func(t *testing.T) {
		for _, name := range []string{"", "a b", "r.example:port", "../x", "r.example/UP", "-x", "r.example/../y"} {
			_, err := k().Login(ctx, name, "me", "p")
			require.ErrorIs(t, err, credentials.ErrInvalid, name)
		}
		for _, user := range []string{"", "a:b", "a\nb"} {
			_, err := k().Login(ctx, "r.example", user, "p")
			require.ErrorIs(t, err, credentials.ErrInvalid, user)
		}
	})
	t.Run("a file that is no document stays", func(t *testing.T) {
		write(t, file, `{"auths":`)
		_, err := k().Login(ctx, "r.example", "me", "p")
		require.ErrorIs(t, err, credentials.ErrInvalid)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, `{"auths":`, string(text))
	})
	t.Run("through a link", func(t *testing.T) {
		real := write(t, filepath.Join(t.TempDir(), "real.json"), `{}`)
		require.NoError(t, os.Remove(file))
		require.NoError(t, os.Symlink(real, file))
		_, err := k().Login(ctx, "r.example", "me", "p")
		require.NoError(t, err)
		link, err := os.Readlink(file)
		require.NoError(t, err)
		assert.Equal(t, real, link)
		text, err := os.ReadFile(real)
		require.NoError(t, err)
		assert.Contains(t, string(text), "r.example")
	})
	t.Run("podman's file keeps plain names", func(t *testing.T) {
		env["REGISTRY_AUTH_FILE"] = filepath.Join(t.TempDir(), "new", "auth.json")
		_, err := k().Login(ctx, "docker.io", "me", "p")
		require.NoError(t, err)
		text, err := os.ReadFile(env["REGISTRY_AUTH_FILE"])
		require.NoError(t, err)
		assert.Contains(t, string(text), `"docker.io"`)
	})
}

// TestLogin_together holds that no login of many at once is lost.
func TestLogin_together(t *testing.T) {
	file := filepath.Join(t.TempDir(), "auth.json")
	errs := make(chan error)
	for _, c := range strings.Split("abcdefgh", "") {
		go func() {
			_, err := credentials.New(credentials.Options{AuthFile: file, MayMiss: true, Getenv: none}).Login(t.Context(), c+".example", c, c)
			errs <- err
		}()
	}
	var all error
	for range 8 {
		all = errors.Join(all, <-errs)
	}
	require.NoError(t, all)
	names, _, err := credentials.New(credentials.Options{AuthFile: file, Getenv: none}).LogoutAll(t.Context())
	require.NoError(t, err)
	assert.Len(t, names, 8)
}

// FuzzDocument holds that no file makes a lookup crash or tell its secrets.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{"auths":{"r.example":{"auth":"czNjcmV0OnMzY3JldA=="}}}`, `{"auths":{"r.example":[]}}`, `{"credHelpers":{"r.example":"/bin/sh"}}`, `[]`, `{"auths":{"https://r.example/v1/":{"auth":"!"}}}`} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		t.Setenv("PATH", dir)
		path := filepath.Join(dir, "auth.json")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err := credentials.New(credentials.Options{AuthFile: path, Getenv: none}).Resolve(res{"r.example", "a/b"})
		if err != nil {
			assert.NotContains(t, err.Error(), "czNjcmV0")
		}
	})
}

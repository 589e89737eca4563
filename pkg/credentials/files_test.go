package credentials_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/credentials"
)

// res is a repository as keychains are asked for it.
type res struct{ host, repo string }

func (r res) RegistryStr() string { return r.host }
func (r res) String() string      { return r.host + "/" + r.repo }

func auth(user, pass string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestKeychain_order(t *testing.T) {
	home := t.TempDir()
	runtimeDir := t.TempDir()
	write(t, filepath.Join(home, ".docker/config.json"), `{"auths":{"docker.example":{"auth":"`+auth("docker", "d")+`"}}}`)
	write(t, filepath.Join(runtimeDir, "containers/auth.json"), `{"auths":{
		"podman.example": {"auth":"`+auth("podman", "p:with:colons")+`"},
		"podman.example/team": {"auth":"`+auth("team", "t")+`"},
		"podman.example/team/app": {"username":"app","password":"a"},
		"docker.io": {"auth":"`+auth("hub", "h")+`"},
		"docker.example": {"auth":"`+auth("shadowed", "s")+`"},
		"identity.example": {"identitytoken":"i"},
		"empty.example": {},
		"bad.example": {"auth":"!!!"},
		"https://old.example/v1/": {"auth":"`+auth("old", "o")+`"}}}`)
	write(t, filepath.Join(home, ".config/containers/auth.json"), `{"auths":{"home.example":{"auth":"`+auth("home", "h")+`"}}}`)
	env := map[string]string{
		"HOME": home, "XDG_RUNTIME_DIR": runtimeDir,
		"DOCKER_AUTH_CONFIG": `{"auths":{"gitlab.example:5050":{"auth":"` + auth("ci", "c") + `"},"docker.example/ci":{"auth":"` + auth("early", "e") + `"}}}`,
	}
	k := credentials.New(credentials.Options{Getenv: func(name string) string { return env[name] }})
	get := func(t *testing.T, host, repo string) authn.AuthConfig {
		a, err := k.Resolve(res{host, repo})
		require.NoError(t, err)
		cfg, err := a.Authorization()
		require.NoError(t, err)
		return *cfg
	}
	for name, tc := range map[string]struct{ host, repo, user, pass string }{
		"the environment comes first":  {"docker.example", "ci", "early", "e"},
		"docker's file comes next":     {"docker.example", "x", "docker", "d"},
		"podman's by host":             {"podman.example", "other", "podman", "p:with:colons"},
		"podman's by namespace":        {"podman.example", "team/x", "team", "t"},
		"podman's by repository":       {"podman.example", "team/app", "app", "a"},
		"not by half a name":           {"podman.example", "teams/app", "podman", "p:with:colons"},
		"docker.io is index.docker.io": {"index.docker.io", "library/debian", "hub", "h"},
		"old keys":                     {"old.example", "x", "old", "o"},
		"podman's second file":         {"home.example", "x", "home", "h"},
		"GitLab's variable":            {"gitlab.example:5050", "group/x", "ci", "c"},
		"another port is another one":  {"gitlab.example", "group/x", "", ""},
		"nobody":                       {"nobody.example", "x", "", ""},
		"an empty entry":               {"empty.example", "x", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := get(t, tc.host, tc.repo)
			assert.Equal(t, tc.user, got.Username)
			assert.Equal(t, tc.pass, got.Password)
		})
	}
	assert.Equal(t, "i", get(t, "identity.example", "x").IdentityToken)

	_, err := k.Resolve(res{"bad.example", "x"})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "auth.json")
	assert.Contains(t, err.Error(), "bad.example")

	env["REGISTRY_AUTH_FILE"] = write(t, filepath.Join(t.TempDir(), "mine.json"), `{"auths":{"mine.example":{"auth":"`+auth("me", "m")+`"}}}`)
	assert.Equal(t, "me", get(t, "mine.example", "x").Username)
	assert.Empty(t, get(t, "podman.example", "x").Username, "a file that is named replaces the others")

	env["REGISTRY_AUTH_FILE"] = write(t, filepath.Join(t.TempDir(), "broken.json"), `{"auths":{"x":{"auth":"c2VjcmV0`)
	_, err = k.Resolve(res{"mine.example", "x"})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "broken.json")
	assert.NotContains(t, err.Error(), "c2VjcmV0")
	assert.Equal(t, "docker", get(t, "docker.example", "x").Username, "another place has credentials")
	env["REGISTRY_AUTH_FILE"] = write(t, filepath.Join(t.TempDir(), "mine.json"), `{"auths":{"docker.example":{"auth":"`+auth("me", "m")+`"}}}`)
	assert.Equal(t, "me", get(t, "docker.example", "x").Username, "a file that is named comes before docker's")
}

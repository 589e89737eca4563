package registry_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

var errBlocked = errors.New("blocked")

// detours is a registries.conf.
type detours struct{}

func (detours) Places(r ref.Ref, _ bool) ([]registry.Place, error) {
	home := registry.Place{Ref: r}
	switch r.Host {
	case "docker.io":
		mirror := r
		mirror.Host, mirror.Repo = "mirror.example", "hub/"+r.Repo
		return []registry.Place{{Ref: mirror, Insecure: true, Mirror: true}, home}, nil
	case "moved.example":
		home.Ref.Host, home.Ref.Repo = "127.0.0.1:5000", "here/"+r.Repo
	case "lax.example":
		home.Insecure = true
	case "blocked.example":
		return nil, errBlocked
	}
	return []registry.Place{home}, nil
}

// TestRoute: whatever makes this machine reach a registry otherwise than by its name is told.
func TestRoute(t *testing.T) {
	dir := t.TempDir()
	ca := authority(t, "Our CA")
	put(t, filepath.Join(dir, "trusted.example", "ca.crt"), ca.PEM)
	o := registry.Options{CertDirs: []string{dir}, Places: detours{}, PlainHTTP: registry.Hosts{Names: []string{"plain.example"}}, Insecure: registry.Hosts{Names: []string{"any.example"}}}
	for text, want := range map[string]registry.Route{
		"r.example/app:1":       {},
		"127.0.0.1:5000/app:1":  {Loopback: true},
		"localhost/app:1":       {Loopback: true},
		"[::1]:5000/app:1":      {Loopback: true},
		"plain.example/app:1":   {Plain: true},
		"any.example/app:1":     {Insecure: true},
		"lax.example/app:1":     {Insecure: true},
		"trusted.example/app:1": {Trusted: true},
		"debian":                {Mirrors: []registry.Mirror{{Name: "mirror.example/hub/library/debian", Insecure: true}}},
		"moved.example/app:1":   {Moved: "127.0.0.1:5000/here/app", Loopback: true},
	} {
		got, err := registry.New(o).Route(mustParse(t, text))
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, text == "r.example/app:1", got.ByName(), text)
	}
	_, err := registry.New(o).Route(mustParse(t, "blocked.example/app:1"))
	require.ErrorIs(t, err, errBlocked)
	_, err = registry.New(o).Route(ref.Ref{Kind: ref.Store, Name: "x"})
	require.ErrorIs(t, err, registry.ErrInvalid)
	o.CAFiles = []string{filepath.Join(dir, "trusted.example", "ca.crt")}
	got, err := registry.New(o).Route(mustParse(t, "r.example/app:1"))
	require.NoError(t, err)
	assert.False(t, got.ByName(), "--ca-file is of this machine")
}

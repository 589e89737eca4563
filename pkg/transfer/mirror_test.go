package transfer

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// mirrored leads pulls from a registry to a mirror first.
type mirrored struct{ host, mirror string }

func (m mirrored) Places(r ref.Ref, pull bool) ([]registry.Place, error) {
	places := []registry.Place{{Ref: r}}
	if pull && r.Host == m.host {
		to := r
		to.Host = m.mirror
		places = append([]registry.Place{{Ref: to, Mirror: true}}, places...)
	}
	return places, nil
}

// TestAppend_mirror appends to a tag of which a mirror has an older state: what counts is where it is written.
func TestAppend_mirror(t *testing.T) {
	t.Parallel()
	env := newEnv(t)
	home, mirror := testregistry.New(t, testregistry.Options{}), testregistry.New(t, testregistry.Options{})
	amd, arm, s390x := image("linux/amd64", "a"), image("linux/arm64", "b"), image("linux/s390x", "c")
	tag := at(t, "%s/app:1", home.Host)
	put(t, env, amd, at(t, "%s/app:1", mirror.Host))
	put(t, env, amd, tag)
	put(t, env, s390x, tag.WithDigest(s390x.Desc.Digest))
	put(t, env, arm, tag.WithDigest(arm.Desc.Digest))
	_, err := Append(t.Context(), env, tag, []index.Entry{entryOf(t, s390x)}, AppendOptions{})
	require.NoError(t, err)
	env.Registry = registry.New(registry.Options{Places: mirrored{home.Host, mirror.Host}, CertDirs: []string{}})
	_, err = Append(t.Context(), env, tag, []index.Entry{entryOf(t, arm)}, AppendOptions{})
	require.NoError(t, err)
	assert.Len(t, platformsOf(t, newEnv(t), tag), 3)
}

// TestCopy_C32 copies from a registry whose mirror sends wrong blobs of the right length: the copy is right, wherever it goes.
func TestCopy_C32_lyingMirror(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]func(t *testing.T, env Env) ref.Ref{
		"a layout": func(t *testing.T, _ Env) ref.Ref { return at(t, "oci:%s:1", filepath.Join(t.TempDir(), "out")) },
		"a registry": func(t *testing.T, _ Env) ref.Ref {
			return at(t, "%s/copy:1", testregistry.New(t, testregistry.Options{}).Host)
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			home, mirror := testregistry.New(t, testregistry.Options{}), testregistry.New(t, testregistry.Options{})
			src := at(t, "%s/app:1", home.Host)
			put(t, env, app(), src)
			mirror.When("GET", testregistry.Blobs, 0, testregistry.Do(func(w http.ResponseWriter, r *http.Request) bool {
				d := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				for _, e := range home.Of("PUT", testregistry.Uploads) {
					if strings.Contains(e.Query, strings.TrimPrefix(d, "sha256:")) {
						_, _ = w.Write(bytes.Repeat([]byte{'x'}, int(e.Received)))
						return true
					}
				}
				return false
			}))
			env.Registry = registry.New(registry.Options{Places: mirrored{home.Host, mirror.Host}, CertDirs: []string{}})
			dst := to(t, env)
			rep, err := Copy(t.Context(), env, src, dst, Options{})
			require.NoError(t, err)
			assert.Equal(t, app().Desc.Digest, rep.Roots[0].Digest)
			assert.NotZero(t, mirror.Count("GET", testregistry.Blobs), "it was asked")
		})
	}
}

package replica

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// skopeoExample has everything that skopeo-sync(1) describes.
const skopeoExample = `
registry.example.com:
    images:
        busybox: []
        redis:
            - "1.0"
            - "2.0"
            - "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    images-by-tag-regex:
        nginx: ^1\.13\.[12]-alpine-perl$
    images-by-semver:
        alpine: ">= 3.12.0"
    credentials:
        username: john
        password: this is a secret
    tls-verify: true
    cert-dir: /home/john/certs
quay.io:
    tls-verify: false
    images:
        coreos/etcd:
            - latest
`

const ownExample = `
version: 1
to: registry.internal:5000/mirror
platforms: [linux/amd64, linux/arm64]
limit: {requests: 10, rate: 20MB}
registries:
  registry.example.com: {username: ci, password-env: TOKEN, cert-dir: /certs}
  localhost:5001: {plain-http: true}
images:
  - from: registry.example.com/team/app
    semver: ">= 1.20, < 3"
    newest: 5
    exclude: -rc
  - from: debian
    to: base/debian
    tags: [bookworm, bookworm-slim]
    platforms: [all]
    referrers: false
  - from: quay.io/x/y
    to: other.internal/y
    match: ^v1\.
    sparse: true
`

func to(t testing.TB, s string) *transfer.Place {
	t.Helper()
	p, err := transfer.ParsePlace(s)
	require.NoError(t, err)
	return &p
}

func secrets(kind SecretKind, name string) (string, error) {
	if kind == SecretEnv && name == "TOKEN" {
		return "hidden", nil
	}
	return "", errors.New("no such secret")
}

func TestParse_skopeo(t *testing.T) {
	p, err := Parse([]byte(skopeoExample), ParseOptions{To: to(t, "registry.internal/prefix")})
	require.NoError(t, err)
	require.Len(t, p.Jobs, 5)
	var got []string
	for _, j := range p.Jobs {
		got = append(got, j.From.Repository()+" > "+j.To.Repository())
	}
	assert.Equal(t, []string{
		"quay.io/coreos/etcd > registry.internal/prefix/etcd",
		"registry.example.com/busybox > registry.internal/prefix/busybox",
		"registry.example.com/redis > registry.internal/prefix/redis",
		"registry.example.com/nginx > registry.internal/prefix/nginx",
		"registry.example.com/alpine > registry.internal/prefix/alpine",
	}, got)
	assert.True(t, p.Jobs[1].Select.all())
	assert.Len(t, p.Jobs[2].Select.Names, 3)
	assert.Equal(t, Registry{Username: "john", Password: "this is a secret", CertDir: "/home/john/certs"}, p.Registries["registry.example.com"])
	assert.True(t, p.Registries["quay.io"].Insecure)

	scoped := to(t, "registry.internal")
	scoped.Scoped = true
	p, err = Parse([]byte(skopeoExample), ParseOptions{To: scoped, Suffix: "-mirror"})
	require.NoError(t, err)
	assert.Equal(t, "registry.internal/quay.io/coreos/etcd", p.Jobs[0].To.Repository())
}

func TestParse_own(t *testing.T) {
	p, err := Parse([]byte(ownExample), ParseOptions{Secret: secrets})
	require.NoError(t, err)
	require.Len(t, p.Jobs, 3)
	app, debian, y := p.Jobs[0], p.Jobs[1], p.Jobs[2]
	assert.Equal(t, "registry.internal:5000/mirror/team/app", app.To.Repository())
	assert.Len(t, app.Platforms, 2)
	assert.Equal(t, 5, app.Select.Newest)
	assert.Equal(t, "docker.io/library/debian", debian.From.Repository())
	assert.Equal(t, "registry.internal:5000/mirror/base/debian", debian.To.Repository())
	assert.Nil(t, debian.Platforms)
	assert.True(t, debian.Bare)
	assert.Equal(t, "other.internal/y", y.To.Repository())
	assert.True(t, y.Sparse)
	assert.Equal(t, "hidden", p.Registries["registry.example.com"].Password)
	assert.True(t, p.Registries["localhost:5001"].PlainHTTP)
	assert.InDelta(t, 10, p.Requests, 0)
	assert.EqualValues(t, 20_000_000, p.Bytes)

	p, err = Parse([]byte(strings.ReplaceAll(ownExample, "to: other.internal/y", "")), ParseOptions{To: to(t, "oci:carry"), Secret: secrets})
	require.NoError(t, err)
	assert.Equal(t, ref.OCILayout, p.Jobs[0].To.Kind)
	assert.Equal(t, "carry/team/app", p.Jobs[0].To.Path)
}

func TestParse_refused(t *testing.T) {
	dest := ParseOptions{To: to(t, "registry.internal"), Secret: secrets}
	for what, c := range map[string]struct {
		text string
		says string
	}{
		"nothing":              {"", ""},
		"no YAML":              {"a: [", "["},
		"a list":               {"- a", ""},
		"an unknown key":       {"version: 1\nimagess: []", "[2:1]"},
		"skopeo, unknown":      {"r.example:\n  image: {}", "[2:3]"},
		"another version":      {"version: 2\nimages: [{from: a}]", "version 2"},
		"no images":            {"version: 1", "no image"},
		"a tag in from":        {"version: 1\nimages: [{from: 'a:1'}]", "tag"},
		"a file as a source":   {"version: 1\nimages: [{from: 'oci:a'}]", "repository"},
		"a pattern":            {"version: 1\nimages: [{from: a, match: '('}]", "match"},
		"a range":              {"version: 1\nimages: [{from: a, semver: 'x y'}]", "semver"},
		"a platform":           {"version: 1\nimages: [{from: a, platforms: [z80]}]", "platform"},
		"a tag":                {"version: 1\nimages: [{from: a, tags: ['a b']}]", "neither a tag"},
		"two to one":           {"version: 1\nimages: [{from: x.example/a, to: a}, {from: y.example/a, to: a}]", "both go to"},
		"skopeo, two to one":   {"x.example: {images: {team/a: []}}\ny.example: {images: {a: []}}", "--scoped"},
		"two passwords":        {"version: 1\nregistries: {x.example: {username: u, password: p, password-env: TOKEN}}\nimages: [{from: a}]", "one of them"},
		"a password alone":     {"version: 1\nregistries: {x.example: {password: p}}\nimages: [{from: a}]", "belong together"},
		"no such variable":     {"version: 1\nregistries: {x.example: {username: u, password-env: NONE}}\nimages: [{from: a}]", "password-env"},
		"a rate":               {"version: 1\nlimit: {rate: fast}\nimages: [{from: a}]", "no size"},
		"a negative rate":      {"version: 1\nlimit: {requests: -1}\nimages: [{from: a}]", "limit"},
		"where to, twice":      {"version: 1\nimages: [{from: a, to: other.example/a}]", "command line"},
		"a name that leaves":   {"version: 1\nimages: [{from: a, to: ../b}]", ""},
		"a repository in caps": {"x.example: {images: {UPPER: []}}", ""},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := Parse([]byte(c.text), dest)
			require.ErrorIs(t, err, ErrInvalid)
			assert.ErrorContains(t, err, c.says)
		})
	}
	t.Run("no destination", func(t *testing.T) {
		_, err := Parse([]byte(skopeoExample), ParseOptions{})
		require.ErrorIs(t, err, ErrInvalid)
	})
	t.Run("E16 a password stands in no error", func(t *testing.T) {
		for _, text := range []string{
			"r.example:\n  credentials: {username: u, password: canary, passwort: canary}\n",
			"version: 1\nregistries:\n  r.example:\n    password: canary\n    x: 1\n",
			"version: 1\nregistries:\n  r.example:\n    password: [canary]\n",
		} {
			_, err := Parse([]byte(text), dest)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "canary")
		}
	})
}

func TestSelect(t *testing.T) {
	tags := []string{"1.0.0", "1.2.0", "1.10.0", "v2.0.0", "2.1.0-rc1", "latest", "3.12", "edge"}
	for what, c := range map[string]struct {
		image   string
		want    []string
		missing []string
	}{
		"all":              {"", []string{"1.0.0", "1.10.0", "1.2.0", "2.1.0-rc1", "3.12", "edge", "latest", "v2.0.0"}, nil},
		"a list":           {"tags: [latest, '9']", []string{"latest"}, []string{"9"}},
		"a pattern":        {"match: ^1\\.", []string{"1.0.0", "1.10.0", "1.2.0"}, nil},
		"a range":          {"semver: '>=1.2, <3'", []string{"1.10.0", "1.2.0", "v2.0.0"}, nil},
		"the newest":       {"semver: '>=1'\n    newest: 2", []string{"3.12", "v2.0.0"}, nil},
		"not these":        {"exclude: ^[0-9v]", []string{"edge", "latest"}, nil},
		"a list and range": {"tags: [edge]\n    semver: ~1.2", []string{"1.2.0", "edge"}, nil},
		"listed for all":   {"tags: ['1.0.0']\n    match: '2'\n    exclude: '1.0.0|rc'", []string{"1.0.0", "1.2.0", "3.12", "v2.0.0"}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			p, err := Parse([]byte("version: 1\nimages:\n  - from: x.example/a\n    "+c.image+"\n"), ParseOptions{To: to(t, "y.example")})
			require.NoError(t, err)
			got, missing := p.Jobs[0].Select.pick(tags)
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.missing, missing)
		})
	}
}

// FuzzParseSync: a file is anything. What is accepted goes to places that are named rightly, and its tags to whatever is
// chosen of them.
func FuzzParseSync(f *testing.F) {
	f.Add([]byte(skopeoExample), "1.0")
	f.Add([]byte(ownExample), "v1.2.3-rc")
	f.Add([]byte("version: 1\nto: store:\nimages: [{from: a}]"), "x")
	f.Add([]byte("a: &a {images: {b: []}}\nc: *a"), "x")
	f.Fuzz(func(t *testing.T, raw []byte, tag string) {
		p, err := Parse(raw, ParseOptions{To: to(t, "registry.internal/m"), Secret: secrets})
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		for _, j := range p.Jobs {
			require.NoError(t, ref.CheckRepo(j.To.Repo))
			require.NoError(t, ref.CheckRepo(j.From.Repo))
			require.Empty(t, j.From.Tag)
			j.Select.pick([]string{tag, "latest", "1.0"})
		}
	})
}

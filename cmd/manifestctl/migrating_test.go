package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// migration is one thing that users of another tool do, as its documentation has it, and how it is done here. REG is a
// registry and OTHER another one; the registries hold the images that the commands name.
type migration struct {
	doing  string
	theirs []string
	ours   []string
	want   []outcome // in the end
	stdout string    // what the last command prints, in part
	exit   int       // of the last command
}

// outcome is what a reference names then.
type outcome struct {
	ref       string
	platforms string   // of the index, in order; "" is not looked at
	holds     []string // text of its raw bytes
	lacks     []string
	gone      bool // it does not exist
}

// peer is one tool.
type peer struct {
	name       string
	intro      string
	migrations []migration
}

// TestMigrating does what the documentation of each peer describes, and holds docs/migrating.md to the same table.
// -update writes it.
func TestMigrating(t *testing.T) {
	reg, other := migrationRegistry(t), migrationRegistry(t)
	for _, p := range peers {
		for i, m := range p.migrations {
			t.Run(fmt.Sprintf("%s %d %s", p.name, i+1, m.doing), func(t *testing.T) {
				t.Parallel()
				m.run(t, fmt.Sprintf("%s/%s%d", reg, strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(p.name)), i+1), reg, other)
			})
		}
	}
	page := migratingPage()
	path := filepath.Join("..", "..", "docs", "migrating.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, page, string(got), "run make docs")
}

// migrationRegistry is a registry with images of one platform each, and an index.
func migrationRegistry(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: dir})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	host := strings.TrimPrefix(srv.URL, "http://")
	layout := t.TempDir()
	images := map[string]testimage.Content{}
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x", "windows/amd64"} {
		name := strings.NewReplacer("linux/", "", "windows/amd64", "windows", "/", "").Replace(p)
		images[name] = testimage.Image(p, testimage.Layer(testimage.File("a", p)).Gzip())
	}
	images["multi"] = testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"kept": "yes"}}, images["amd64"], images["arm64"], images["s390x"])
	testimage.WriteLayout(t, layout, images)
	e := migrationEnv(t, t.TempDir())
	for name := range images {
		require.Zero(t, run(t.Context(), e, []string{"copy", "oci:" + layout + ":" + name, host + "/app:" + name}))
		require.Zero(t, run(t.Context(), e, []string{"copy", "oci:" + layout + ":" + name, host + "/app-" + name + ":v1"}))
	}
	return host
}

// migrationEnv is the world of a command in a test, with a store and a home of its own.
func migrationEnv(t *testing.T, home string) *env {
	t.Helper()
	vars := map[string]string{"HOME": home, "MANIFESTCTL_ROOT": filepath.Join(home, "store"), "DOCKER_CONFIG": filepath.Join(home, ".docker")}
	return &env{
		stdin: strings.NewReader(""), stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), now: time.Now,
		lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		size:   func() (int, int) { return 0, 0 },
	}
}

// expand puts in what a command names: LIST is a name in REG that is this migration's own.
func expand(s string, at map[string]string) string {
	for _, name := range []string{"LIST", "OTHER", "REG", "DIR", "ARM64", "AMD64"} {
		if v, ok := at[name]; ok {
			s = strings.ReplaceAll(s, "$"+name, v)
		}
	}
	return s
}

func (m migration) run(t *testing.T, list, reg, other string) {
	home := t.TempDir()
	at := map[string]string{"LIST": list, "REG": reg, "OTHER": other, "DIR": home}
	client := registry.New(registry.Options{})
	defer client.Close()
	opener := &source.Opener{Registry: client}
	open := func(text string) (source.Image, error) {
		r, err := ref.Parse(text)
		require.NoError(t, err)
		return opener.Open(t.Context(), r)
	}
	for name, tag := range map[string]string{"ARM64": "arm64", "AMD64": "amd64"} {
		img, err := open(reg + "/app:" + tag)
		require.NoError(t, err)
		at[name] = img.Root().Digest.String()
	}
	require.NoError(t, os.WriteFile(filepath.Join(home, "spec.yaml"), []byte(expand(specExample, at)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, "descriptor.json"), []byte(expand(descriptorExample, at)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, "layer.tar"), testimage.Layer(testimage.File("more", "x")).Tar, 0o600))
	testimage.WriteLayout(t, filepath.Join(home, "layout"), map[string]testimage.Content{
		"v1": testimage.Image("linux/riscv64", testimage.Layer(testimage.File("a", "layout"))),
	})
	for i, line := range m.ours {
		e := migrationEnv(t, home)
		code := run(t.Context(), e, split(t, expand(line, at))[1:])
		want := 0
		if i == len(m.ours)-1 {
			want = m.exit
			assert.Contains(t, fmt.Sprint(e.stdout), expand(m.stdout, at))
		}
		require.Equal(t, want, code, "%s: %s", line, e.stderr)
	}
	for _, o := range m.want {
		img, err := open(expand(o.ref, at))
		if o.gone {
			require.ErrorIs(t, err, source.ErrNotFound)
			continue
		}
		require.NoError(t, err)
		raw, err := img.Manifest(t.Context(), img.Root())
		require.NoError(t, err)
		if o.platforms != "" {
			assert.Equal(t, o.platforms, platformsOf(t, img), "%s", raw)
		}
		for _, text := range o.holds {
			assert.Contains(t, string(raw), expand(text, at))
		}
		for _, text := range o.lacks {
			assert.NotContains(t, string(raw), expand(text, at))
		}
		requireReadable(t, img, img.Root())
		require.NoError(t, img.Close())
	}
}

// platformsOf lists what the entries of an index are for; nested indexes in brackets.
func platformsOf(t *testing.T, img source.Image) string {
	t.Helper()
	root := img.Root()
	if !index.IsIndex(root.MediaType) {
		found, err := source.Resolve(t.Context(), img, platform.Platform{})
		require.NoError(t, err)
		return "single " + found.Platform.String()
	}
	idx, err := source.ReadIndex(t.Context(), img, root)
	require.NoError(t, err)
	var out []string
	for _, m := range idx.Manifests {
		switch {
		case index.IsIndex(m.MediaType):
			out = append(out, "[index]")
		case m.Platform == nil:
			out = append(out, "?")
		default:
			p, err := platform.FromOCI(*m.Platform)
			require.NoError(t, err)
			out = append(out, p.String())
		}
	}
	return strings.Join(out, " ")
}

// requireReadable reads every document that something leads to.
func requireReadable(t *testing.T, img source.Image, desc ocispec.Descriptor) {
	t.Helper()
	if !index.IsIndex(desc.MediaType) {
		m, _, err := source.ReadManifest(t.Context(), img, desc)
		require.NoError(t, err)
		if m.ArtifactType != "" {
			return
		}
		_, err = source.ReadConfig(t.Context(), img, m)
		require.NoError(t, err)
		return
	}
	idx, err := source.ReadIndex(t.Context(), img, desc)
	require.NoError(t, err)
	for _, m := range idx.Manifests {
		requireReadable(t, img, m)
	}
}

// split takes a command line apart; 'single quotes' keep words together.
func split(t *testing.T, line string) []string {
	t.Helper()
	var out []string
	word, inWord, quoted := "", false, false
	for _, r := range line + " " {
		switch {
		case r == '\'':
			quoted, inWord = !quoted, true
		case r == ' ' && !quoted:
			if inWord {
				out = append(out, word)
			}
			word, inWord = "", false
		default:
			word, inWord = word+string(r), true
		}
	}
	require.False(t, quoted, line)
	return out
}

// migratingPage is docs/migrating.md.
func migratingPage() string {
	at := map[string]string{
		"LIST": "registry.example/app", "REG": "registry.example", "OTHER": "other.example", "DIR": ".",
		"ARM64": "sha256:1f0e...", "AMD64": "sha256:9c2d...",
	}
	var b strings.Builder
	b.WriteString(migratingHead)
	for _, p := range peers {
		fmt.Fprintf(&b, "\n## %s\n\n", p.name)
		if p.intro != "" {
			fmt.Fprintf(&b, "%s\n\n", p.intro)
		}
		for _, m := range p.migrations {
			fmt.Fprintf(&b, "%s:\n\n```\n", m.doing)
			for _, c := range m.theirs {
				fmt.Fprintf(&b, "# %s\n", expand(c, at))
			}
			for _, c := range m.ours {
				fmt.Fprintf(&b, "%s\n", expand(c, at))
			}
			b.WriteString("```\n\n")
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

const migratingHead = `<!-- made by ` + "`make docs`" + ` from the table that TestMigrating runs -->
# Coming from other tools

What the documentation of other tools does with manifest lists, as a comment, and how it is done here below it. Every command of this page
is run by a test. References are the same everywhere: ` + "`oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE` and `store:NAME`" + ` work wherever a
registry's do; ` + "`docker://`, `oci-layout://` and `ocidir://`" + ` are understood.
`

// specExample is a file of manifest-tool's.
const specExample = `image: $LIST:spec
tags: [spec-too]
manifests:
  - image: $REG/app:amd64
    platform: {architecture: amd64, os: linux}
  - image: $REG/app:armv7
    platform: {architecture: arm, os: linux, variant: v6}
`

// descriptorExample is a file of imagetools'.
const descriptorExample = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$ARM64","size":1,"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"annotations":{"from":"file"}}`

package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

// memory opens every reference as one image.
type memory struct {
	testimage.Content
	err error // of what is missing; nil means source.ErrNotFound

	reads sync.Map // digest → how often
}

func (m *memory) Open(_ context.Context, r ref.Ref) (source.Image, error) {
	return &opened{m, r}, nil
}

type opened struct {
	*memory
	ref ref.Ref
}

func (o *opened) Root() ocispec.Descriptor { return o.Desc }
func (o *opened) Ref() ref.Ref             { return o.ref }
func (o *opened) Close() error             { return nil }

func (o *opened) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	o.reads.Store(desc.Digest, true)
	if raw, ok := o.Blobs[desc.Digest]; ok {
		return raw, nil
	}
	if o.err != nil {
		return nil, o.err
	}
	return nil, fmt.Errorf("%w: the blob %s", source.ErrNotFound, desc.Digest)
}

func (o *opened) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := o.Manifest(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

// layers are n layers of some bytes.
func layers(n int) []testimage.LayerData {
	var ls []testimage.LayerData
	for i := range n {
		ls = append(ls, testimage.Layer(testimage.File("f"+strconv.Itoa(i), strings.Repeat("x", 600_000*(i+1)))))
	}
	return ls
}

// sample is an index as BuildKit makes it, with an artifact beside.
func sample() testimage.Content {
	edit := testimage.ImageOptions{Edit: func(i *ocispec.Image) {
		i.Config.Labels = map[string]string{"title": "<hello>"}
		i.Config.Entrypoint = []string{"/hello", "-v"}
	}}
	amd64 := testimage.ImageWith(edit, "linux/amd64", layers(3)...)
	arm64 := testimage.ImageWith(edit, "linux/arm64/v8", layers(2)...)
	armv7 := testimage.Image("linux/arm/v7")
	attestation := testimage.Image("unknown/unknown")
	attestation.Desc.Annotations = map[string]string{
		index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: arm64.Desc.Digest.String(),
	}
	artifact := testimage.Document(ocispec.MediaTypeImageManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"artifactType":"text/x-notes","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]}`, digest.FromString("{}")))
	artifact.Desc.ArtifactType = "text/x-notes"
	return testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"org.opencontainers.image.title": "hello", "a": "\x1b[31mred"}},
		amd64, attestation, artifact, testimage.Index(arm64), armv7)
}

func run(t *testing.T, c testimage.Content, o Options) (*Result, string, error) {
	t.Helper()
	r, err := ref.Parse("registry.example/app:1.0")
	require.NoError(t, err)
	res, err := Run(t.Context(), &memory{Content: c}, r, o)
	if err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	require.NoError(t, res.Write(&b))
	return res, b.String(), nil
}

func TestGolden(t *testing.T) {
	idx := sample()
	single := testimage.ImageWith(testimage.ImageOptions{Docker: true, Edit: func(i *ocispec.Image) { i.Config.User = "1000" }}, "linux/s390x", layers(1)...)
	artifact := testimage.Document(ocispec.MediaTypeImageManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.x","digest":%q,"size":2},"layers":[],"annotations":{"a":"b"}}`, ocispec.MediaTypeImageManifest, digest.FromString("{}")))
	for name, tc := range map[string]struct {
		c testimage.Content
		o Options
	}{
		"index.txt":            {idx, Options{}},
		"index.json":           {idx, Options{Format: "json"}},
		"index_template.json":  {idx, Options{Format: "{{json .}}"}},
		"index_platform.txt":   {idx, Options{Platform: platform.Platform{OS: "linux", Arch: "arm64"}}},
		"single.txt":           {single, Options{Format: "table"}},
		"single.json":          {single, Options{Format: "json"}},
		"single_template.json": {single, Options{Format: "{{json .}}"}},
		"artifact.txt":         {artifact, Options{}},
		"artifact.json":        {artifact, Options{Format: "json"}},
		"empty.txt":            {testimage.Index(), Options{}},
		"empty.json":           {testimage.Index(), Options{Format: "json"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := run(t, tc.c, tc.o)
			require.NoError(t, err)
			golden(t, name, out)
			if strings.HasSuffix(name, ".json") {
				assert.True(t, json.Valid([]byte(out)))
			}
			assert.NotContains(t, strings.ReplaceAll(out, "\n", ""), "\x1b", "B17: nothing steers a terminal, and JSON escapes it anyway")
		})
	}
}

func TestRaw(t *testing.T) {
	idx := sample()
	_, out, err := run(t, idx, Options{Raw: true})
	require.NoError(t, err)
	assert.Equal(t, string(idx.Raw()), out)

	res, out, err := run(t, idx, Options{Raw: true, Platform: platform.Platform{OS: "linux", Arch: "amd64"}})
	require.NoError(t, err)
	assert.Equal(t, res.Desc.Digest, digest.FromString(out))
	assert.Equal(t, "registry.example/app@"+res.Desc.Digest.String(), res.Name)
	assert.Contains(t, out, ocispec.MediaTypeImageManifest)

	// What is no manifest at all is still shown as it is: raw parses nothing.
	odd := testimage.Document("application/vnd.new", []byte("{ odd"))
	_, out, err = run(t, odd, Options{Raw: true})
	require.NoError(t, err)
	assert.Equal(t, "{ odd", out)
}

func TestTemplates(t *testing.T) {
	idx := sample()
	single := testimage.ImageWith(testimage.ImageOptions{Edit: func(i *ocispec.Image) {
		i.Config.Labels = map[string]string{"title": "<hello>"}
		i.Author = "some body"
	}}, "linux/arm/v7", layers(1)...)
	config := `{"x":{"b":1,"a":2},"architecture":"arm64","os":"linux","config":{"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]}}`
	unknown := single
	unknown.Blobs = map[digest.Digest][]byte{digest.FromString(config): []byte(config)}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`, ocispec.MediaTypeImageConfig, digest.FromString(config), len(config))
	unknown.Desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(manifest), Size: int64(len(manifest))}
	unknown.Blobs[unknown.Desc.Digest] = []byte(manifest)

	for name, tc := range map[string]struct {
		c       testimage.Content
		format  string
		want    string
		wantErr error
	}{
		"name":                         {c: idx, format: "{{.Name}}", want: "registry.example/app:1.0"},
		"digest":                       {c: idx, format: "{{.Manifest.Digest}}", want: idx.Desc.Digest.String()},
		"digest as JSON":               {c: idx, format: "{{json .Manifest.Digest}}", want: strconv.Quote(idx.Desc.Digest.String())},
		"media type and size":          {c: idx, format: "{{.Manifest.MediaType}} {{.Manifest.Size}}", want: fmt.Sprintf("%s %d", ocispec.MediaTypeImageIndex, len(idx.Raw()))},
		"the children":                 {c: idx, format: "{{range .Manifest.Manifests}}{{if .Platform}}{{.Platform.Architecture}} {{end}}{{end}}", want: "amd64 unknown arm "},
		"one config":                   {c: idx, format: `{{(index .Image "linux/arm64").Config.Entrypoint}}`, want: "[/hello -v]"},
		"platforms":                    {c: idx, format: `{{range $p, $i := .Image}}{{$p}}={{$i.Architecture}} {{end}}`, want: "linux/amd64=amd64 linux/arm/v7=arm linux/arm64=arm64 "},
		"annotations":                  {c: idx, format: `{{index .Manifest.Annotations "org.opencontainers.image.title"}}`, want: "hello"},
		"a platform that is not there": {c: idx, format: `{{json (index .Image "linux/s390x")}}`, want: "null"},
		"a field of a single image":    {c: single, format: "{{.Architecture}}/{{.Variant}} {{.OS}} {{.Author}}", want: "arm/v7 linux some body"},
		"config of a single image":     {c: single, format: `{{index .Config.Labels "title"}} {{.RootFS.Type}} {{len .History}} {{.Created.Year}}`, want: "<hello> layers 1 2020"},
		"the same by .Image":           {c: single, format: `{{index .Image.Config.Labels "title"}} {{.Image.Architecture}}`, want: "<hello> arm"},
		"layers of a single image":     {c: single, format: `{{range .Manifest.Layers}}{{.MediaType}}{{end}}`, want: ocispec.MediaTypeImageLayer},
		"JSON keeps unknown fields":    {c: unknown, format: `{{json .Image}}`, want: indent(t, config)},
		"functions":                    {c: single, format: `{{upper .OS}} {{lower "A"}} {{title .Author}} {{join (split "a,b" ",") "-"}} {{truncate "ábc" 2}} [{{pad "x" 1 2}}]`, want: "LINUX a Some Body a-b áb [ x  ]"},
		"functions, odd values":        {c: single, format: `{{title ""}}{{truncate "a" -1}}{{truncate "a" 5}}{{pad "" 3 3}}{{pad "a" -1 -1}}`, want: "aa"},
		"ends with its own newline":    {c: single, format: "{{println .OS}}", want: "linux"},
		"text alone":                   {c: single, format: "x", want: "x"},

		"no template":       {c: idx, format: "{{", wantErr: ErrFormat},
		"unknown function":  {c: idx, format: "{{env .}}", wantErr: ErrFormat},
		"unknown field":     {c: idx, format: "{{.Nothing}}", wantErr: ErrFormat},
		"field of an index": {c: idx, format: "{{.Architecture}}", wantErr: ErrFormat},
		"wrong argument":    {c: idx, format: "{{upper 1}}", wantErr: ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := run(t, tc.c, Options{Format: tc.format})
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr == nil {
				assert.Equal(t, tc.want+"\n", out)
			}
		})
	}
}

func indent(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Indent(&b, []byte(text), "", "  "))
	return b.String()
}

// TestOptionsAreCheckedFirst: nothing is opened for options that cannot be.
func TestOptionsAreCheckedFirst(t *testing.T) {
	for name, o := range map[string]Options{
		"raw and format": {Raw: true, Format: "json"},
		"no template":    {Format: "{{.Name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), nil, ref.Ref{}, o)
			require.ErrorIs(t, err, ErrFormat)
		})
	}
}

// TestReadsNoMoreThanNeeded: a digest costs one document.
func TestReadsNoMoreThanNeeded(t *testing.T) {
	for name, tc := range map[string]struct {
		o    Options
		want int
	}{
		"raw":       {Options{Raw: true}, 1},
		"digest":    {Options{Format: "{{.Manifest.Digest}}"}, 1},
		"platforms": {Options{Format: "{{range .Manifest.Manifests}}{{.Digest}}{{end}}"}, 1},
		"table":     {Options{}, 2 + 3*2}, // two indexes, manifest and config of three
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{Content: sample()}
			_, err := Run(t.Context(), m, ref.Ref{Kind: ref.OCILayout, Path: "x"}, tc.o)
			require.NoError(t, err)
			n := 0
			m.reads.Range(func(any, any) bool { n++; return true })
			assert.Equal(t, tc.want, n)
		})
	}
}

func TestWarnings(t *testing.T) {
	amd64, lie, twice := testimage.Image("linux/amd64"), testimage.Image("linux/arm64", layers(1)...), testimage.Image("linux/amd64", layers(1)...)
	p := testimage.Platform("linux/s390x")
	lie.Desc.Platform = &p
	missing := testimage.Image("linux/riscv64", layers(1)...)
	odd := testimage.Image("linux/ppc64le", layers(1)...)
	odd.Desc.Platform = &ocispec.Platform{OS: "li nux", Architecture: "x"}
	idx := testimage.Index(amd64, lie, twice, missing, odd)
	delete(idx.Blobs, missing.Desc.Digest)

	res, out, err := run(t, idx, Options{})
	require.NoError(t, err)
	text := strings.Join(res.Warnings, "\n")
	assert.Contains(t, text, "linux/s390x, but its config says linux/arm64", "B12")
	assert.Contains(t, text, "clients take "+amd64.Desc.Digest.String()+" and never "+twice.Desc.Digest.String(), "B11")
	assert.Contains(t, text, missing.Desc.Digest.String(), "B25")
	assert.Contains(t, text, odd.Desc.Digest.String())
	for _, c := range []testimage.Content{amd64, lie, twice, missing, odd} {
		assert.Contains(t, out, c.Desc.Digest.String(), "all of them are shown")
	}
	require.Len(t, res.Images, 5)
	assert.Nil(t, res.Images[3].Config)
	golden(t, "warnings.txt", out+"\n"+text+"\n")

	_, out, err = run(t, idx, Options{Format: "json"})
	require.NoError(t, err)
	var got struct{ Warnings []string }
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, res.Warnings, got.Warnings)

	// A single image that contradicts itself is shown as well.
	single := testimage.ImageWith(testimage.ImageOptions{Edit: func(i *ocispec.Image) { i.RootFS.DiffIDs = nil }}, "linux/amd64", layers(1)...)
	res, out, err = run(t, single, Options{})
	require.NoError(t, err)
	assert.Len(t, res.Warnings, 1)
	assert.Contains(t, out, "linux/amd64")
}

func TestErrors(t *testing.T) {
	idx := sample()
	_, _, err := run(t, idx, Options{Platform: platform.Platform{OS: "linux", Arch: "s390x"}})
	require.ErrorIs(t, err, source.ErrNotFound)
	require.ErrorContains(t, err, "linux/amd64, linux/arm64, linux/arm/v7")

	_, _, err = run(t, testimage.Document(ocispec.MediaTypeImageIndex, []byte("<html>")), Options{})
	require.ErrorIs(t, err, index.ErrInvalid)
	_, _, err = run(t, testimage.Document("text/html", []byte("<html>")), Options{Format: "json"})
	require.ErrorIs(t, err, index.ErrInvalidManifest)

	// What stands in the way of reading is an error for every form of output, and keeps its kind in templates.
	broken := &memory{Content: sample(), err: registry.ErrDenied}
	for _, e := range broken.Blobs {
		if strings.Contains(string(e), `"architecture":"arm64"`) && strings.Contains(string(e), "rootfs") {
			delete(broken.Blobs, digest.FromBytes(e))
		}
	}
	for _, format := range []string{"", "json", "{{json .}}", `{{json .Image}}`, `{{range .Image}}{{.OS}}{{end}}`} {
		_, err = Run(t.Context(), broken, ref.Ref{Kind: ref.OCILayout, Path: "x"}, Options{Format: format})
		require.ErrorIs(t, err, registry.ErrDenied, "%q", format)
		require.NotErrorIs(t, err, ErrFormat, "%q", format)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stop")
	cancel(cause)
	_, err = Run(ctx, &memory{Content: sample()}, ref.Ref{Kind: ref.OCILayout, Path: "x"}, Options{})
	require.ErrorIs(t, err, cause)

	res, _, err := run(t, idx, Options{})
	require.NoError(t, err)
	require.ErrorIs(t, res.Write(failingWriter{}), io.ErrClosedPipe)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestConcurrent: configs are fetched several at a time, and not all at once.
func TestConcurrent(t *testing.T) {
	var images []testimage.Content
	for i := range 30 {
		images = append(images, testimage.Image("linux/arch"+strconv.Itoa(i)))
	}
	idx := testimage.Index(images...)
	var mu sync.Mutex
	now, most := 0, 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		d := digest.Digest(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		if d == "latest" {
			d = idx.Desc.Digest
		}
		data, ok := idx.Blobs[d]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", map[bool]string{true: ocispec.MediaTypeImageIndex, false: ocispec.MediaTypeImageManifest}[d == idx.Desc.Digest])
		_, _ = w.Write(data)
	}))
	defer s.Close()
	r, err := ref.Parse(strings.TrimPrefix(s.URL, "http://") + "/app:latest")
	require.NoError(t, err)
	res, err := Run(t.Context(), &source.Opener{Registry: registry.New(registry.Options{})}, r, Options{})
	require.NoError(t, err)
	require.Len(t, res.Images, 30)
	for i, img := range res.Images {
		assert.Equal(t, "arch"+strconv.Itoa(i), img.Platform.Arch, "in the index's order")
		assert.NotNil(t, img.Config)
	}
	assert.Greater(t, most, 1)
	assert.LessOrEqual(t, most, maxFetches)
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünï ✓":                  "plain ünï ✓",
		"a\x1b]8;;x\x07b":              `a\x1b]8;;x\ab`,
		"tab\tnew\nline":               `tab\tnew\nline`,
		"bidi\u202eevil":               `bidi\u202eevil`,
		"bad\xff":                      `bad\xff`,
		`"quoted" \`:                   `"quoted" \`,
		"\x00\"":                       `\x00"`,
		strings.Repeat("é", 150):       strings.Repeat("é", 100) + "...",
		strings.Repeat("a", 199) + "é": strings.Repeat("a", 199) + "...",
	} {
		assert.Equal(t, want, visible(in), "%q", in)
	}
}

func TestHumanSize(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 1234: "1.23 kB", 9994: "9.99 kB", 9995: "10.0 kB", 12345: "12.3 kB", 99949: "99.9 kB",
		99950: "100 kB", 999499: "999 kB", 999500: "1.00 MB", 2_100_000: "2.10 MB", 1 << 62: "4.61 EB", -1: "-1 B",
	} {
		assert.Equal(t, want, humanSize(in), "%d", in)
	}
}

func ExampleRun() {
	idx := testimage.Index(testimage.Image("linux/amd64"), testimage.Image("linux/arm64"))
	res, err := Run(context.Background(), &memory{Content: idx}, ref.Ref{Kind: ref.OCILayout, Path: "out"}, Options{
		Format: `{{range $platform, $config := .Image}}{{println $platform $config.Architecture}}{{end}}`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = res.Write(os.Stdout)
	// Output:
	// linux/amd64 amd64
	// linux/arm64 arm64
}

func FuzzFormat(f *testing.F) {
	for _, seed := range []string{"{{json .}}", "{{.Name}}", "{{range .Manifest.Manifests}}{{.Digest}}{{end}}", `{{index .Image "x"}}`, "{{pad .Name 1 2}}"} {
		f.Add(seed)
	}
	c := testimage.Index(testimage.Image("linux/amd64"))
	f.Fuzz(func(t *testing.T, format string) {
		if strings.Contains(format, "pad") || strings.Contains(format, "printf") {
			return // they make text as long as they are told
		}
		_, _ = Run(t.Context(), &memory{Content: c}, ref.Ref{Kind: ref.OCILayout, Path: "x"}, Options{Format: format})
	})
}

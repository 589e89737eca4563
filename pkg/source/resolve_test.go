package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

func must(t testing.TB, s string) platform.Platform {
	t.Helper()
	p, err := platform.Parse(s)
	require.NoError(t, err)
	return p
}

// image is an image for p whose descriptor in an index says claims; "" leaves the platform out.
func image(p, claims string) testimage.Content {
	c := testimage.Image(p, testimage.Layer(testimage.File("p", p)))
	c.Desc.Platform = nil
	if claims != "" {
		o := testimage.Platform(claims)
		c.Desc.Platform = &o
	}
	return c
}

// attestationOf is what BuildKit adds to an index.
func attestationOf(c testimage.Content) testimage.Content {
	a := image("unknown/unknown", "unknown/unknown")
	a.Desc.Annotations = map[string]string{
		index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: c.Desc.Digest.String(),
	}
	return a
}

func TestResolve(t *testing.T) {
	amd64, arm64 := image("linux/amd64", "linux/amd64"), image("linux/arm64", "linux/arm64")
	v5, v6, v7 := image("linux/arm/v5", "linux/arm/v5"), image("linux/arm/v6", "linux/arm/v6"), image("linux/arm/v7", "linux/arm/v7")
	for name, tc := range map[string]struct {
		img     testimage.Content
		want    string // "": the only one
		got     testimage.Content
		is      string // the platform in the result; "" means want
		wantErr error
		text    []string
	}{
		"of an index":                  {img: testimage.Index(amd64, arm64), want: "linux/arm64", got: arm64},
		"of a docker list":             {img: testimage.IndexWith(testimage.IndexOptions{Docker: true}, amd64, arm64), want: "linux/arm64", got: arm64},
		"of an index in an index":      {img: testimage.Index(amd64, testimage.Index(arm64, v7)), want: "linux/arm/v7", got: v7},
		"exact variant":                {img: testimage.Index(v5, v6, v7), want: "linux/arm/v6", got: v6},
		"next lower variant":           {img: testimage.Index(v5, v6), want: "linux/arm/v7", got: v6, is: "linux/arm/v6"},
		"v8 in the descriptor":         {img: testimage.Index(image("linux/arm64", "linux/arm64/v8")), want: "linux/arm64", got: image("linux/arm64", "")},
		"v8 in the config":             {img: testimage.Index(image("linux/arm64/v8", "linux/arm64")), want: "linux/arm64", got: image("linux/arm64/v8", "")},
		"variant only in the index":    {img: testimage.Index(image("linux/arm", "linux/arm/v6")), want: "linux/arm/v6", got: image("linux/arm", "")},
		"B12 no platform in the index": {img: testimage.Index(amd64, image("linux/arm64", "")), want: "linux/arm64", got: image("linux/arm64", "")},
		"B11 the first of two":         {img: testimage.Index(amd64, image("linux/amd64", "linux/amd64")), want: "linux/amd64", got: amd64},
		"B11 one platform twice":       {img: testimage.Index(amd64, image("linux/amd64", "linux/amd64")), got: amd64, is: "linux/amd64"},
		"the only one":                 {img: testimage.Index(attestationOf(amd64), amd64), got: amd64, is: "linux/amd64"},
		"a single image":               {img: amd64, want: "linux/amd64", got: amd64},
		"a single image, whatever":     {img: amd64, got: amd64, is: "linux/amd64"},

		"not in the index":            {img: testimage.Index(amd64, arm64), want: "linux/s390x", wantErr: ErrNotFound, text: []string{"linux/s390x", "linux/amd64, linux/arm64"}},
		"B13 attestations are none":   {img: testimage.Index(attestationOf(amd64)), want: "linux/amd64", wantErr: ErrNotFound, text: []string{"nothing"}},
		"an empty index":              {img: testimage.Index(), want: "linux/amd64", wantErr: ErrNotFound, text: []string{"nothing"}},
		"which of two":                {img: testimage.Index(amd64, arm64), wantErr: ErrAmbiguous, text: []string{"linux/amd64, linux/arm64"}},
		"arm is not arm64":            {img: testimage.Index(v7), want: "linux/arm64", wantErr: ErrNotFound},
		"386 is not amd64":            {img: testimage.Index(image("linux/386", "linux/386")), want: "linux/amd64", wantErr: ErrNotFound},
		"no higher variant":           {img: testimage.Index(v7), want: "linux/arm/v6", wantErr: ErrNotFound},
		"B12 single, other platform":  {img: arm64, want: "linux/amd64", wantErr: ErrNotFound, text: []string{"linux/arm64", "linux/amd64"}},
		"B12 the config says another": {img: testimage.Index(image("linux/amd64", "linux/arm64")), want: "linux/arm64", wantErr: ErrInvalid, text: []string{"linux/arm64", "linux/amd64"}},
		"B12 variant contradicts":     {img: testimage.Index(image("linux/arm/v7", "linux/arm/v6")), want: "linux/arm/v6", wantErr: ErrInvalid, text: []string{"linux/arm/v6", "linux/arm/v7"}},
		"variant only in the config":  {img: testimage.Index(image("linux/arm/v7", "linux/arm")), want: "linux/arm/v7", got: image("linux/arm/v7", "")},
		"the config wants more":       {img: testimage.Index(image("linux/amd64/v3", "linux/amd64")), want: "linux/amd64", wantErr: ErrInvalid, text: []string{"linux/amd64/v3"}},
		"B07 too many":                {img: bomb(index.MaxDescriptors/2, 3), want: "linux/amd64", wantErr: ErrInvalid},
		"B07 too deep":                {img: nested(amd64, maxNesting), want: "linux/amd64", wantErr: ErrInvalid},
		"deep enough":                 {img: nested(amd64, maxNesting-1), want: "linux/amd64", got: amd64},
		"B07 one index many times":    {img: repeated(amd64, 7, 100), want: "linux/amd64", got: amd64},
	} {
		t.Run(name, func(t *testing.T) {
			var want platform.Platform
			if tc.want != "" {
				want = must(t, tc.want)
			}
			got, err := Resolve(t.Context(), fake(tc.img), want)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				for _, text := range tc.text {
					require.ErrorContains(t, err, text)
				}
				return
			}
			assert.Equal(t, tc.got.Desc.Digest, got.Desc.Digest)
			assert.Equal(t, string(tc.got.Config), string(got.Config))
			if tc.is == "" {
				tc.is = tc.want
			}
			assert.Equal(t, must(t, tc.is), got.Platform)
			require.NotNil(t, got.Desc.Platform)
		})
	}
}

// nested puts c into n indexes more than the one around it.
func nested(c testimage.Content, n int) testimage.Content {
	for range n + 1 {
		c = testimage.Index(c)
	}
	return c
}

// repeated is depth indexes, each with the next one width times.
func repeated(c testimage.Content, depth, width int) testimage.Content {
	for range depth {
		children := make([]testimage.Content, width)
		for i := range children {
			children[i] = c
		}
		c = testimage.Index(children...)
	}
	return c
}

// bomb is an index of different indexes with many entries each.
func bomb(entries, indexes int) testimage.Content {
	leaf := image("linux/arm64", "linux/arm64")
	var parts []testimage.Content
	for i := range indexes {
		children := make([]testimage.Content, entries)
		for j := range children {
			children[j] = testimage.Content{Desc: leaf.Desc}
		}
		part := testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"n": fmt.Sprint(i)}}, children...)
		parts = append(parts, part)
	}
	return testimage.Index(parts...)
}

// TestResolveCycle: B08. Digests that are verified cannot make a cycle; an Image that verifies nothing can.
func TestResolveCycle(t *testing.T) {
	img := &fakeImage{blobs: map[digest.Digest][]byte{}}
	a, b := digest.FromString("a"), digest.FromString("b")
	for from, to := range map[digest.Digest]digest.Digest{a: b, b: a} {
		img.blobs[from] = fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`, ocispec.MediaTypeImageIndex, to)
	}
	img.root = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: a}
	_, err := Resolve(t.Context(), img, must(t, "linux/amd64"))
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "cycle at "+a.String())
}

// TestCrossChecks changes one document of an image and puts it back under its new digest.
func TestCrossChecks(t *testing.T) {
	type document = map[string]any
	layers := func(m document) []any { return m["layers"].([]any) }
	for name, tc := range map[string]struct {
		config, manifest func(document)
		root             func(*ocispec.Descriptor)
		wantErr          error
	}{
		"nothing changed":          {},
		"A26 more layers":          {manifest: func(m document) { m["layers"] = append(layers(m), layers(m)[0]) }, wantErr: ErrInvalid},
		"A26 fewer layers":         {manifest: func(m document) { m["layers"] = layers(m)[1:] }, wantErr: ErrInvalid},
		"A26 no diff_ids":          {config: func(c document) { delete(c, "rootfs") }, wantErr: ErrInvalid},
		"bad diff_id":              {config: func(c document) { c["rootfs"] = document{"diff_ids": []string{"sha256:../x"}} }, wantErr: ErrInvalid},
		"an artifact":              {manifest: func(m document) { m["config"].(document)["mediaType"] = "application/vnd.x" }, wantErr: ErrInvalid},
		"B12 config without os":    {config: func(c document) { delete(c, "os") }, wantErr: ErrInvalid},
		"B12 config without arch":  {config: func(c document) { c["architecture"] = "" }, wantErr: ErrInvalid},
		"B12 odd architecture":     {config: func(c document) { c["architecture"] = "\x1b[0m" }, wantErr: ErrInvalid},
		"B22 huge number":          {config: func(c document) { c["created"] = 1e300 }, wantErr: ErrInvalid},
		"unknown fields":           {config: func(c document) { c["x"] = document{"y": 1} }, manifest: func(m document) { m["x"] = nil }},
		"docker's config":          {manifest: func(m document) { m["config"].(document)["mediaType"] = index.MediaTypeDockerConfig }},
		"B03 another media type":   {root: func(d *ocispec.Descriptor) { d.MediaType = index.MediaTypeDockerManifest }, wantErr: ErrInvalid},
		"B03 said to be an index":  {root: func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageIndex }, wantErr: ErrInvalid},
		"B03 document says none":   {manifest: func(m document) { delete(m, "mediaType") }},
		"B04 manifests as well":    {manifest: func(m document) { m["manifests"] = []any{} }, wantErr: ErrInvalid},
		"B06 config as a layer":    {manifest: func(m document) { layers(m)[0].(document)["mediaType"] = ocispec.MediaTypeImageConfig }, wantErr: ErrInvalid},
		"B15 digest of the config": {manifest: func(m document) { m["config"].(document)["digest"] = "sha256:../../x" }, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "1")))
			img := fake(c)
			edit := func(raw []byte, change func(document)) ocispec.Descriptor {
				var d document
				require.NoError(t, json.Unmarshal(raw, &d))
				change(d)
				raw, err := json.Marshal(d)
				require.NoError(t, err)
				desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
				img.blobs[desc.Digest] = raw
				return desc
			}
			config := edit(c.Config, func(d document) {
				if tc.config != nil {
					tc.config(d)
				}
			})
			manifest := edit(c.Raw(), func(d document) {
				d["config"].(document)["digest"], d["config"].(document)["size"] = config.Digest, config.Size
				if tc.manifest != nil {
					tc.manifest(d)
				}
			})
			manifest.MediaType = c.Desc.MediaType
			if tc.root != nil {
				tc.root(&manifest)
			}
			img.root = manifest
			_, err := Resolve(t.Context(), img, must(t, "linux/amd64"))
			require.ErrorIs(t, err, tc.wantErr)
			require.NotErrorIs(t, err, platform.ErrInvalid, "that kind is for what people type")
		})
	}
}

func TestList(t *testing.T) {
	amd64, arm64 := image("linux/amd64", "linux/amd64"), image("linux/arm64", "")
	odd := image("linux/s390x", "linux/ ")
	artifact := testimage.Document(ocispec.MediaTypeImageManifest,
		fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.x","digest":%q,"size":2},"layers":[]}`, digest.FromString("{}")))
	opaque := testimage.Document("application/vnd.new", []byte("new"))
	missing := image("linux/riscv64", "")
	idx := testimage.Index(amd64, attestationOf(amd64), testimage.Index(arm64), artifact, opaque, odd, missing)
	delete(idx.Blobs, missing.Desc.Digest)

	got, err := List(t.Context(), fake(idx))
	require.NoError(t, err)
	kinds := map[digest.Digest]EntryKind{}
	for _, e := range got {
		kinds[e.Desc.Digest] = e.Kind
	}
	require.Len(t, got, 7)
	assert.Equal(t, EntryImage, got[0].Kind)
	assert.Equal(t, must(t, "linux/amd64"), got[0].Platform)
	assert.Equal(t, EntryAttestation, got[1].Kind)
	assert.Equal(t, amd64.Desc.Digest, got[1].Attests)
	assert.Equal(t, must(t, "linux/arm64"), got[2].Platform, "from the config")
	assert.Equal(t, EntryOther, got[3].Kind)
	assert.Equal(t, EntryOther, got[4].Kind)
	require.ErrorIs(t, got[5].Err, ErrInvalid)
	require.ErrorIs(t, got[6].Err, ErrNotFound)

	got, err = List(t.Context(), fake(amd64))
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, must(t, "linux/amd64"), got[0].Platform)

	// What stands in the way of reading is an error, not a property of the index.
	img := fake(idx)
	img.err = errors.New("connection reset")
	_, err = List(t.Context(), img)
	require.ErrorIs(t, err, img.err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	img.err = ctx.Err()
	_, err = Resolve(ctx, img, must(t, "linux/amd64"))
	require.ErrorIs(t, err, context.Canceled)
}

// TestResolveNamesUnreadable: an entry whose platform cannot be told stands in the list of what there is.
func TestResolveNamesUnreadable(t *testing.T) {
	missing := image("linux/riscv64", "")
	idx := testimage.Index(image("linux/amd64", "linux/amd64"), missing)
	delete(idx.Blobs, missing.Desc.Digest)
	_, err := Resolve(t.Context(), fake(idx), must(t, "linux/arm64"))
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, missing.Desc.Digest.String())
}

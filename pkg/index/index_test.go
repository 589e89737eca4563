package index

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func entry(d digest.Digest, os, arch, variant string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 7,
		Platform: &ocispec.Platform{OS: os, Architecture: arch, Variant: variant},
	}
}

func attestation(d, of digest.Digest) ocispec.Descriptor {
	desc := entry(d, "unknown", "unknown", "")
	desc.Annotations = map[string]string{AnnotationReferenceType: attestationManifest, AnnotationReferenceDigest: of.String()}
	return desc
}

func TestAssemble(t *testing.T) {
	amd64, arm64 := entry(digestA, "linux", "amd64", ""), entry(digestB, "linux", "arm64", "")
	for name, tc := range map[string]struct {
		in      []ocispec.Descriptor
		o       Options
		want    string
		wantErr error
	}{
		"order is kept, annotations are sorted": {
			in: []ocispec.Descriptor{arm64, amd64},
			o:  Options{Annotations: map[string]string{"b": "<&>", "a": "1"}},
			want: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
				`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestB + `","size":7,"platform":{"architecture":"arm64","os":"linux"}},` +
				`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestA + `","size":7,"platform":{"architecture":"amd64","os":"linux"}}],` +
				`"annotations":{"a":"1","b":"<&>"}}`,
		},
		"empty": {want: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`},
		"docker": {
			in: []ocispec.Descriptor{amd64},
			o:  Options{Docker: true},
			want: `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[` +
				`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestA + `","size":7,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		},
		"docker with annotations": {in: []ocispec.Descriptor{amd64}, o: Options{Docker: true, Annotations: map[string]string{"a": "1"}}, wantErr: ErrInvalid},
		"B11 platform twice":      {in: []ocispec.Descriptor{amd64, entry(digestB, "linux", "amd64", "")}, wantErr: ErrInvalid},
		"B11 platform twice in two spellings": {
			in: []ocispec.Descriptor{arm64, entry(digestA, "linux", "aarch64", "v8")}, wantErr: ErrInvalid,
		},
		"variants are platforms": {in: []ocispec.Descriptor{entry(digestA, "linux", "arm", "v6"), entry(digestB, "linux", "arm", "v7")}},
		"B12 no platform":        {in: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA}}, wantErr: ErrInvalid},
		"no known platform":      {in: []ocispec.Descriptor{entry(digestA, "", "", "")}, wantErr: ErrInvalid},
		"bad digest":             {in: []ocispec.Descriptor{entry("sha256:xyz", "linux", "amd64", "")}, wantErr: ErrInvalid},
		"B13 attestations repeat": {in: []ocispec.Descriptor{
			amd64, attestation(digestB, digestA), attestation(digestB, digestA),
		}},
		"nested index has no platform": {in: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageIndex, Digest: digestA, Size: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			desc, raw, err := Assemble(tc.in, tc.o)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				return
			}
			if tc.want != "" {
				assert.Equal(t, tc.want, string(raw))
			}
			assert.Equal(t, digest.FromBytes(raw), desc.Digest)
			assert.Equal(t, int64(len(raw)), desc.Size)

			idx, err := Parse(raw)
			require.NoError(t, err, "what is assembled can be read")
			assert.Equal(t, desc.MediaType, idx.MediaType)
			assert.Len(t, idx.Manifests, len(tc.in))
			assert.Equal(t, tc.o.Annotations, idx.Annotations)
		})
	}
}

func TestAssembleTooBig(t *testing.T) {
	many := make([]ocispec.Descriptor, MaxDescriptors+1)
	for i := range many {
		many[i] = attestation(digestA, digestB)
	}
	_, _, err := Assemble(many, Options{})
	require.ErrorIs(t, err, ErrInvalid)

	_, _, err = Assemble(nil, Options{Annotations: map[string]string{"a": strings.Repeat("x", MaxSize)}})
	require.ErrorIs(t, err, ErrInvalid)
}

// doc is an index with the members of one entry and more of the document.
func doc(entry, more string) string {
	return `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,` + entry + `}]` + more + `}`
}

// manyEntries is an index of n right entries.
func manyEntries(n int) string {
	e := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"digest":"` + digestA + `"}`
	return `{"schemaVersion":2,"manifests":[` + strings.Repeat(e+",", n-1) + e + `]}`
}

func TestParse(t *testing.T) {
	right := `"digest":"` + digestA + `"`
	data := base64.StdEncoding.EncodeToString([]byte("{}"))
	const dataDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	for name, tc := range map[string]struct {
		in      string
		wantErr error
	}{
		"one entry":      {in: doc(right, "")},
		"docker list":    {in: doc(right, `,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json"`)},
		"no entries":     {in: `{"schemaVersion":2,"manifests":[]}`},
		"unknown fields": {in: doc(right+`,"x":{"y":1},"platform":{"os":"linux","architecture":"arm64","features":["f"]}`, `,"z":[]`)},
		"nested index":   {in: strings.Replace(doc(right, ""), "image.manifest", "image.index", 1)},

		"B02 negative size":    {in: strings.Replace(doc(right, ""), `"size":7`, `"size":-1`, 1), wantErr: ErrInvalid},
		"B02 size no integer":  {in: strings.Replace(doc(right, ""), `"size":7`, `"size":7.5`, 1), wantErr: ErrInvalid},
		"B02 size too large":   {in: strings.Replace(doc(right, ""), `"size":7`, `"size":9223372036854775808`, 1), wantErr: ErrInvalid},
		"B03 says manifest":    {in: doc(right, `,"mediaType":"application/vnd.oci.image.manifest.v1+json"`), wantErr: ErrInvalid},
		"B04 layers as well":   {in: doc(right, `,"layers":[]`), wantErr: ErrInvalid},
		"B04 config as well":   {in: doc(right, `,"config":null`), wantErr: ErrInvalid},
		"B04 fsLayers as well": {in: doc(right, `,"fsLayers":[]`), wantErr: ErrInvalid},
		"B05 unknown type":     {in: strings.Replace(doc(right, ""), "vnd.oci.image.manifest.v1", "vnd.new.thing", 1)},
		"B05 with parameters":  {in: strings.Replace(doc(right, ""), "v1+json", "v1+json; charset=utf-8", 1)},
		"B05 no media type":    {in: `{"schemaVersion":2,"manifests":[{"size":7,` + right + `}]}`, wantErr: ErrInvalid},
		"B05 type is a number": {in: doc(right, `,"mediaType":7`), wantErr: ErrInvalid},
		"B05 foreign document": {in: doc(right, `,"mediaType":"text/html"`), wantErr: ErrInvalid},
		"B06 layer as a child": {in: strings.Replace(doc(right, ""), "image.manifest.v1+json", "image.layer.v1.tar+gzip", 1), wantErr: ErrInvalid},
		"B06 config as a child": {
			in: strings.Replace(doc(right, ""), "image.manifest", "image.config", 1), wantErr: ErrInvalid,
		},
		"B07 just enough":      {in: manyEntries(MaxDescriptors)},
		"B07 too many entries": {in: manyEntries(MaxDescriptors + 1), wantErr: ErrInvalid},
		"B09 too big":          {in: doc(right, `,"x":"`+strings.Repeat("x", MaxSize)+`"`), wantErr: ErrInvalid},
		"B10 repeated key":     {in: doc(right+`,"digest":"`+digestB+`"`, ""), wantErr: ErrInvalid},
		"B10 case variant":     {in: doc(right+`,"Digest":"`+digestB+`"`, ""), wantErr: ErrInvalid},
		"B10 case variant of the list": {
			in: `{"schemaVersion":2,"manifests":[],"Manifests":[]}`, wantErr: ErrInvalid,
		},
		"B10 null list":        {in: `{"schemaVersion":2,"manifests":null}`, wantErr: ErrInvalid},
		"B10 null entry":       {in: `{"schemaVersion":2,"manifests":[null]}`, wantErr: ErrInvalid},
		"B10 second document":  {in: doc(right, "") + "{}", wantErr: ErrInvalid},
		"B10 list no array":    {in: `{"schemaVersion":2,"manifests":{}}`, wantErr: ErrInvalid},
		"B15 path in a digest": {in: doc(`"digest":"sha256:../../x"`, ""), wantErr: ErrInvalid},
		"B15 upper case":       {in: doc(`"digest":"`+strings.ToUpper(digestA)+`"`, ""), wantErr: ErrInvalid},
		"B15 upper case hex":   {in: doc(`"digest":"sha256:`+strings.Repeat("A", 64)+`"`, ""), wantErr: ErrInvalid},
		"B15 short":            {in: doc(`"digest":"sha256:abc"`, ""), wantErr: ErrInvalid},
		"B15 algorithm alone":  {in: doc(`"digest":"sha256"`, ""), wantErr: ErrInvalid},
		"B15 unicode digits":   {in: doc(`"digest":"sha256:`+strings.Repeat("١", 64)+`"`, ""), wantErr: ErrInvalid},
		"B15 empty":            {in: doc(`"digest":""`, ""), wantErr: ErrInvalid},
		"B15 missing":          {in: doc(`"annotations":{}`, ""), wantErr: ErrInvalid},
		"B16 sha512":           {in: doc(`"digest":"sha512:`+strings.Repeat("0", 128)+`"`, "")},
		"B16 sha512, short":    {in: doc(`"digest":"sha512:`+strings.Repeat("0", 64)+`"`, ""), wantErr: ErrInvalid},
		"B16 blake3 passes":    {in: doc(`"digest":"blake3:`+strings.Repeat("0", 64)+`"`, "")},
		"B16 base64 passes":    {in: doc(`"digest":"sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"`, "")},
		"B16 unknown with a path": {
			in: doc(`"digest":"blake3:../../x"`, ""), wantErr: ErrInvalid,
		},
		"B19 data":                {in: strings.Replace(doc(`"digest":"`+dataDigest+`","data":"`+data+`"`, ""), `"size":7`, `"size":2`, 1)},
		"B19 data of other size":  {in: doc(`"digest":"`+dataDigest+`","data":"`+data+`"`, ""), wantErr: ErrInvalid},
		"B19 data of other bytes": {in: strings.Replace(doc(right+`,"data":"`+data+`"`, ""), `"size":7`, `"size":2`, 1), wantErr: ErrInvalid},
		"B21 schema 1":            {in: `{"schemaVersion":1,"name":"x","fsLayers":[]}`, wantErr: ErrSchema1},
		"B21 schema 3":            {in: `{"schemaVersion":3,"manifests":[]}`, wantErr: ErrInvalid},
		"no schemaVersion":        {in: `{"manifests":[]}`, wantErr: ErrInvalid},
		"a manifest":              {in: `{"schemaVersion":2,"config":{},"layers":[]}`, wantErr: ErrInvalid},
		"neither":                 {in: `{"schemaVersion":2}`, wantErr: ErrInvalid},
		"C26 a page":              {in: `<!DOCTYPE html>`, wantErr: ErrInvalid},
		"an array":                {in: `[]`, wantErr: ErrInvalid},
		"subject":                 {in: doc(right, `,"subject":{"mediaType":"m","size":1,"digest":"`+digestB+`"}`)},
		"bad subject":             {in: doc(right, `,"subject":{"mediaType":"m","size":1,"digest":"x"}`), wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			idx, err := Parse([]byte(tc.in))
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				require.ErrorIs(t, err, ErrInvalid)
				return
			}
			assert.Equal(t, tc.in, string(idx.Raw), "B14 the bytes are kept")
			assert.NotEmpty(t, idx.MediaType)
		})
	}
}

func TestParseManifest(t *testing.T) {
	make := func(config, layer, more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":3}]%s}`,
			config, digestA, layer, digestB, more)
	}
	const gz, docker = ocispec.MediaTypeImageLayerGzip, MediaTypeDockerManifest
	for name, tc := range map[string]struct {
		in      string
		want    string // media type
		wantErr error
	}{
		"oci":                  {in: make(ocispec.MediaTypeImageConfig, gz, ""), want: ocispec.MediaTypeImageManifest},
		"docker":               {in: make(MediaTypeDockerConfig, MediaTypeDockerLayer+".gzip", `,"mediaType":"`+docker+`"`), want: docker},
		"artifact":             {in: make("application/vnd.x", "text/plain", `,"artifactType":"y"`), want: ocispec.MediaTypeImageManifest},
		"B06 config as layer":  {in: make(ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageConfig, ""), wantErr: ErrInvalidManifest},
		"B06 index as layer":   {in: make(ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageIndex, ""), wantErr: ErrInvalidManifest},
		"B06 layer as config":  {in: make(gz, gz, ""), wantErr: ErrInvalidManifest},
		"B04 manifests":        {in: make(ocispec.MediaTypeImageConfig, gz, `,"manifests":[]`), wantErr: ErrInvalidManifest},
		"B03 says index":       {in: make(ocispec.MediaTypeImageConfig, gz, `,"mediaType":"`+ocispec.MediaTypeImageIndex+`"`), wantErr: ErrInvalidManifest},
		"B10 null layers":      {in: `{"schemaVersion":2,"config":{},"layers":null}`, wantErr: ErrInvalidManifest},
		"no config":            {in: `{"schemaVersion":2,"layers":[]}`, wantErr: ErrInvalidManifest},
		"no layers":            {in: `{"schemaVersion":2,"config":{"mediaType":"x","size":0,"digest":"` + digestA + `"}}`, wantErr: ErrInvalidManifest},
		"B21 zero layers":      {in: `{"schemaVersion":2,"config":{"mediaType":"x","size":0,"digest":"` + digestA + `"},"layers":[]}`, want: ocispec.MediaTypeImageManifest},
		"an index":             {in: doc(`"digest":"`+digestA+`"`, ""), wantErr: ErrInvalidManifest},
		"B21 schema 1":         {in: `{"schemaVersion":1,"fsLayers":[]}`, wantErr: ErrSchema1},
		"bad layer digest":     {in: strings.Replace(make(ocispec.MediaTypeImageConfig, gz, ""), digestB, "sha256:b", 1), wantErr: ErrInvalidManifest},
		"bad subject":          {in: make(ocispec.MediaTypeImageConfig, gz, `,"subject":{"digest":"x"}`), wantErr: ErrInvalidManifest},
		"B10 LAYERS":           {in: make(ocispec.MediaTypeImageConfig, gz, `,"LAYERS":[]`), wantErr: ErrInvalidManifest},
		"wrong type somewhere": {in: make(ocispec.MediaTypeImageConfig, gz, `,"annotations":[]`), wantErr: ErrInvalidManifest},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseManifest([]byte(tc.in))
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				require.ErrorIs(t, err, ErrInvalidManifest)
				return
			}
			assert.Equal(t, tc.want, m.MediaType)
		})
	}
}

func TestSniff(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"index":          {in: `{"schemaVersion":2,"manifests":[]}`, want: ocispec.MediaTypeImageIndex},
		"manifest":       {in: `{"schemaVersion":2,"layers":[]}`, want: ocispec.MediaTypeImageManifest},
		"docker list":    {in: `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerList + `","manifests":[]}`, want: MediaTypeDockerList},
		"its own is odd": {in: `{"schemaVersion":2,"mediaType":"","manifests":[]}`, want: ocispec.MediaTypeImageIndex},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Sniff([]byte(tc.in))
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
	_, err := Sniff([]byte(`{}`))
	require.Error(t, err)
}

func TestIsAttestation(t *testing.T) {
	for name, tc := range map[string]struct {
		in   ocispec.Descriptor
		want bool
		of   digest.Digest
	}{
		"B13 by annotation":   {in: attestation(digestA, digestB), want: true, of: digestB},
		"by platform alone":   {in: entry(digestA, "unknown", "unknown", ""), want: true},
		"annotation alone":    {in: ocispec.Descriptor{Annotations: map[string]string{AnnotationReferenceType: attestationManifest}}, want: true},
		"of no digest at all": {in: attestation(digestA, "../../x"), want: true},
		"an image":            {in: entry(digestA, "linux", "amd64", "")},
		"half unknown":        {in: entry(digestA, "unknown", "amd64", "")},
		"nothing said":        {in: ocispec.Descriptor{Digest: digestA}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, IsAttestation(tc.in))
			assert.Equal(t, tc.of, Attests(tc.in))
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		doc(`"digest":"`+digestA+`","platform":{"os":"linux","architecture":"arm","variant":"v7"}`, `,"annotations":{"a":"b"}`),
		doc(`"digest":"sha256:../../x"`, `,"layers":[]`),
		`{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"` + digestB + `","size":2,"data":"e30="}]}`,
		`{"schemaVersion":1}`, `{"schemaVersion":2,"Manifests":[]}`, `{"schemaVersion":2,"manifests":null}`,
		`{"schemaVersion":2,"config":{"mediaType":"c","digest":"` + digestA + `","size":2},"layers":[{"mediaType":"l","digest":"` + digestB + `","size":1}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if m, err := ParseManifest(in); err == nil {
			require.NotEmpty(t, m.MediaType)
			require.NoError(t, CheckDescriptor(m.Config))
		} else {
			require.ErrorIs(t, err, ErrInvalidManifest)
		}
		idx, err := Parse(in)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.Equal(t, in, idx.Raw)
		for _, d := range idx.Manifests {
			require.NoError(t, CheckDescriptor(d))
			require.NotContains(t, string(d.Digest), "/")
			require.NotContains(t, string(d.Digest), "..")
		}
		// Another reader of JSON sees the same entries.
		var plain struct {
			Manifests []struct{ Digest string }
		}
		require.NoError(t, json.Unmarshal(in, &plain))
		require.Len(t, plain.Manifests, len(idx.Manifests))
		for i, d := range idx.Manifests {
			require.Equal(t, plain.Manifests[i].Digest, string(d.Digest))
		}
	})
}

func ExampleAssemble() {
	_, raw, err := Assemble([]ocispec.Descriptor{
		{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: 1234,
			Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"},
		},
	}, Options{})
	fmt.Println(string(raw), err)
	// Output: {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1234,"platform":{"architecture":"arm64","os":"linux"}}]} <nil>
}

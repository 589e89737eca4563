package image

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var (
	amd64 = platform.Platform{OS: "linux", Arch: "amd64"}
	arm64 = platform.Platform{OS: "linux", Arch: "arm64"}
	armv7 = platform.Platform{OS: "linux", Arch: "arm", Variant: "v7"}
)

// layerN is a layer of the base; made gives it a history.
func layerN(n int) Layer {
	return Layer{
		Desc: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip,
			Digest:    digest.FromString("blob" + strconv.Itoa(n)),
			Size:      int64(100 + n),
		},
		DiffID: digest.FromString("diff" + strconv.Itoa(n)),
	}
}

func made(l Layer, by string) Layer {
	l.History = &ocispec.History{CreatedBy: by}
	return l
}

func ptr(s string) *string { return &s }

func TestAssembleScratch(t *testing.T) {
	img, err := Assemble(Input{
		Platform:    armv7,
		Layers:      []Layer{made(layerN(1), "FILES /hello"), made(layerN(2), "RUN true && false")},
		Patch:       graph.ConfigPatch{Entrypoint: []string{"/hello"}, Env: []string{"A=<b>"}},
		Annotations: map[string]string{"z": "1", "a": "2"},
		Created:     1700000000,
	})
	require.NoError(t, err)

	want := `{"created":"2023-11-14T22:13:20Z","architecture":"arm","variant":"v7","os":"linux",` +
		`"config":{"Env":["A=<b>"],"Entrypoint":["/hello"]},` +
		`"rootfs":{"type":"layers","diff_ids":["` + layerN(1).DiffID.String() + `","` + layerN(2).DiffID.String() + `"]},` +
		`"history":[{"created":"2023-11-14T22:13:20Z","created_by":"FILES /hello","comment":"manifestctl"},` +
		`{"created":"2023-11-14T22:13:20Z","created_by":"RUN true && false","comment":"manifestctl"}]}`
	assert.Equal(t, want, string(img.Config))
	assert.Equal(t, digest.FromString(want), img.CfgDesc.Digest)
	assert.Equal(t, ocispec.MediaTypeImageConfig, img.CfgDesc.MediaType)

	wantManifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digest.FromString(want).String() + `","size":` + strconv.Itoa(len(want)) + `},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + layerN(1).Desc.Digest.String() + `","size":101},` +
		`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + layerN(2).Desc.Digest.String() + `","size":102}],` +
		`"annotations":{"a":"2","z":"1"}}`
	assert.Equal(t, wantManifest, string(img.Manifest))
	assert.Equal(t, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(wantManifest), Size: int64(len(wantManifest)),
		Platform: &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
	}, img.Desc)
	assert.Equal(t, []digest.Digest{layerN(1).DiffID, layerN(2).DiffID}, img.DiffIDs)

	_, err = index.ParseManifest(img.Manifest)
	require.NoError(t, err)
}

func TestAssembleNothing(t *testing.T) {
	img, err := Assemble(Input{Platform: amd64})
	require.NoError(t, err)
	assert.Equal(t, `{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, string(img.Config))
	m, err := index.ParseManifest(img.Manifest)
	require.NoError(t, err)
	assert.Empty(t, m.Layers)
}

const baseConfig = `{
  "architecture": "arm64", "variant": "v8", "os": "linux", "os.version": "1.2", "os.features": ["f"],
  "x-unknown": {"deep": [1.0, {"b": 2, "a": 1}]},
  "config": {
    "Healthcheck": {"Test": ["CMD", "true"]}, "User": "base", "Env": ["PATH=/bin", "B=1", "C=2", "B=3"],
    "Entrypoint": ["/base"], "Cmd": ["base"], "Labels": {"z": "1", "a": "2"}, "OnBuild": ["RUN x"],
    "ExposedPorts": {"22/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/w", "StopSignal": "SIGQUIT"
  },
  "created": "2001-01-01T00:00:00.5Z", "author": "base",
  "rootfs": {"type": "layers", "diff_ids": ["` + "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + `"]},
  "history": [{"created": "2001-01-01T00:00:00Z", "created_by": "ADD", "x": 1}, {"created_by": "CMD", "empty_layer": true}]
}`

func TestAssembleBase(t *testing.T) {
	img, err := Assemble(Input{
		Platform: arm64,
		Base:     []byte(baseConfig),
		Layers:   []Layer{layerN(1), made(layerN(2), "RUN x")},
		Created:  7,
		Patch: graph.ConfigPatch{
			Entrypoint: []string{"/new"}, Env: []string{"B=9", "D=4"}, Labels: map[string]string{"n": "3", "a": "<>", "m": "4"},
			User: ptr("1000"), WorkingDir: ptr("/x"), ExposedPorts: []string{"80", "22", "53/UDP"}, Volumes: []string{"/v", "/data"},
			StopSignal: ptr("SIGTERM"), Author: ptr("me"),
		},
	})
	require.NoError(t, err)
	want := `{"architecture":"arm64","variant":"v8","os":"linux","os.version":"1.2","os.features":["f"],` +
		`"x-unknown":{"deep":[1.0,{"b":2,"a":1}]},` +
		`"config":{"Healthcheck":{"Test":["CMD","true"]},"User":"1000","Env":["PATH=/bin","B=9","C=2","D=4"],` +
		`"Entrypoint":["/new"],"Labels":{"z":"1","a":"<>","m":"4","n":"3"},"OnBuild":["RUN x"],` +
		`"ExposedPorts":{"22/tcp":{},"53/udp":{},"80/tcp":{}},"Volumes":{"/data":{},"/v":{}},"WorkingDir":"/x","StopSignal":"SIGTERM"},` +
		`"created":"1970-01-01T00:00:07Z","author":"me",` +
		`"rootfs":{"type":"layers","diff_ids":["` + layerN(1).DiffID.String() + `","` + layerN(2).DiffID.String() + `"]},` +
		`"history":[{"created":"2001-01-01T00:00:00Z","created_by":"ADD","x":1},{"created_by":"CMD","empty_layer":true},` +
		`{"created":"1970-01-01T00:00:07Z","created_by":"RUN x","comment":"manifestctl"}]}`
	assert.Equal(t, want, string(img.Config))
	assert.Equal(t, arm64, img.Platform)
	assert.Empty(t, img.Desc.Platform.Variant)
}

func TestPatch(t *testing.T) {
	const base = `{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1"],"User":"u","Labels":null}}`
	for name, tc := range map[string]struct {
		patch    graph.ConfigPatch
		platform platform.Platform
		base     string
		want     string // the config's "config"
		wantErr  error
	}{
		"nothing":                     {want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1"],"User":"u","Labels":null}`},
		"entrypoint clears cmd":       {patch: graph.ConfigPatch{Entrypoint: []string{"/n"}}, want: `{"Entrypoint":["/n"],"Env":["A=1"],"User":"u","Labels":null}`},
		"both":                        {patch: graph.ConfigPatch{Entrypoint: []string{"/n"}, Cmd: []string{"d"}}, want: `{"Entrypoint":["/n"],"Cmd":["d"],"Env":["A=1"],"User":"u","Labels":null}`},
		"cmd keeps the entrypoint":    {patch: graph.ConfigPatch{Cmd: []string{"d"}}, want: `{"Entrypoint":["/e"],"Cmd":["d"],"Env":["A=1"],"User":"u","Labels":null}`},
		"empty lists clear":           {patch: graph.ConfigPatch{Entrypoint: []string{}, Cmd: []string{}}, want: `{"Env":["A=1"],"User":"u","Labels":null}`},
		"an empty user clears":        {patch: graph.ConfigPatch{User: ptr("")}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1"],"Labels":null}`},
		"labels where there are null": {patch: graph.ConfigPatch{Labels: map[string]string{"a": "b"}}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1"],"User":"u","Labels":{"a":"b"}}`},
		"variable without a value":    {patch: graph.ConfigPatch{Env: []string{"A="}}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A="],"User":"u","Labels":null}`},
		"the last of two counts":      {patch: graph.ConfigPatch{Env: []string{"B=1", "B=2"}}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1","B=2"],"User":"u","Labels":null}`},
		"names have case":             {patch: graph.ConfigPatch{Env: []string{"a=2"}}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1","a=2"],"User":"u","Labels":null}`},
		"but not on windows": {
			platform: platform.Platform{OS: "windows", Arch: "amd64"}, base: strings.Replace(base, "linux", "windows", 1),
			patch: graph.ConfigPatch{Env: []string{"a=2"}}, want: `{"Entrypoint":["/e"],"Cmd":["c"],"Env":["a=2"],"User":"u","Labels":null}`,
		},
		"ports": {
			base: `{"architecture":"amd64","os":"linux"}`, patch: graph.ConfigPatch{ExposedPorts: []string{"9000-9001/udp", "443", "80/sctp", "80/tcp"}},
			want: `{"ExposedPorts":{"80/sctp":{},"80/tcp":{},"443/tcp":{},"9000/udp":{},"9001/udp":{}}}`,
		},
		"no ports":             {base: `{"architecture":"amd64","os":"linux"}`, patch: graph.ConfigPatch{ExposedPorts: []string{}, Env: []string{}, Volumes: []string{}}, want: `{}`},
		"variable without =":   {patch: graph.ConfigPatch{Env: []string{"A"}}, wantErr: ErrInvalid},
		"variable, no name":    {patch: graph.ConfigPatch{Env: []string{"=1"}}, wantErr: ErrInvalid},
		"B22 NUL in env":       {patch: graph.ConfigPatch{Env: []string{"A=\x00"}}, wantErr: ErrInvalid},
		"port 0":               {patch: graph.ConfigPatch{ExposedPorts: []string{"0"}}, wantErr: ErrInvalid},
		"port 65536":           {patch: graph.ConfigPatch{ExposedPorts: []string{"65536"}}, wantErr: ErrInvalid},
		"backward range":       {patch: graph.ConfigPatch{ExposedPorts: []string{"9-8"}}, wantErr: ErrInvalid},
		"half a range":         {patch: graph.ConfigPatch{ExposedPorts: []string{"9-"}}, wantErr: ErrInvalid},
		"port by name":         {patch: graph.ConfigPatch{ExposedPorts: []string{"http"}}, wantErr: ErrInvalid},
		"unknown protocol":     {patch: graph.ConfigPatch{ExposedPorts: []string{"80/x"}}, wantErr: ErrInvalid},
		"volume without path":  {patch: graph.ConfigPatch{Volumes: []string{""}}, wantErr: ErrInvalid},
		"config no object":     {base: `{"config":[]}`, wantErr: ErrInvalid},
		"env no array":         {base: `{"config":{"Env":{}}}`, patch: graph.ConfigPatch{Env: []string{"A=1"}}, wantErr: ErrInvalid},
		"base no object":       {base: `[]`, wantErr: ErrInvalid},
		"base is null":         {base: `null`, wantErr: ErrInvalid},
		"B10 base repeats":     {base: `{"os":"linux","os":"linux"}`, wantErr: ErrInvalid},
		"B10 base, other case": {base: `{"OS":"linux"}`, wantErr: ErrInvalid},
		"rootfs no object":     {base: `{"rootfs":1}`, wantErr: ErrInvalid},
		"history no array":     {base: `{"history":{}}`, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Platform: amd64, Base: []byte(base), Patch: tc.patch}
			if !tc.platform.IsZero() {
				in.Platform = tc.platform
			}
			if tc.base != "" {
				in.Base = []byte(tc.base)
			}
			img, err := Assemble(in)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				return
			}
			var got struct{ Config json.RawMessage }
			require.NoError(t, json.Unmarshal(img.Config, &got))
			assert.Equal(t, tc.want, string(got.Config))
		})
	}
}

func TestPlatform(t *testing.T) {
	for name, tc := range map[string]struct {
		base string
		p    platform.Platform
		want ocispec.Platform
	}{
		"scratch":                   {p: armv7, want: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		"base's spelling stays":     {base: `{"os":"linux","architecture":"arm64","variant":"v8"}`, p: arm64, want: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		"alias becomes its name":    {base: `{"os":"linux","architecture":"x86_64"}`, p: amd64, want: ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		"variant is added":          {base: `{"os":"linux","architecture":"arm","variant":"v6"}`, p: armv7, want: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		"variant goes":              {base: `{"os":"linux","architecture":"amd64","variant":"v3"}`, p: amd64, want: ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		"missing variant of v7":     {base: `{"os":"linux","architecture":"arm"}`, p: armv7, want: ocispec.Platform{OS: "linux", Architecture: "arm"}},
		"base's os.version stays":   {base: `{"os":"windows","architecture":"amd64","os.version":"10.0.1"}`, p: platform.Platform{OS: "windows", Arch: "amd64"}, want: ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.1"}},
		"the platform's is written": {base: `{"os":"windows","architecture":"amd64","os.version":"1"}`, p: platform.Platform{OS: "windows", Arch: "amd64", OSVersion: "2", OSFeatures: "win32k"}, want: ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "2", OSFeatures: []string{"win32k"}}},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Platform: tc.p}
			if tc.base != "" {
				in.Base = []byte(tc.base)
			}
			img, err := Assemble(in)
			require.NoError(t, err)
			var got ocispec.Image
			require.NoError(t, json.Unmarshal(img.Config, &got))
			assert.Equal(t, tc.want, got.Platform)
		})
	}
}

func TestHistory(t *testing.T) {
	const pad = `{"created":"1970-01-01T00:00:01Z","comment":"manifestctl"}`
	entry := func(by string) string {
		return `{"created":"1970-01-01T00:00:01Z","created_by":"` + by + `","comment":"manifestctl"}`
	}
	for name, tc := range map[string]struct {
		base   string
		layers []Layer
		want   string // "" : none
	}{
		"none, and none made":       {layers: []Layer{layerN(1)}},
		"base's alone":              {base: `[{"created_by":"a"}]`, layers: []Layer{layerN(1)}, want: `[{"created_by":"a"}]`},
		"one made":                  {base: `[{"created_by":"a"}]`, layers: []Layer{layerN(1), made(layerN(2), "x")}, want: `[{"created_by":"a"},` + entry("x") + `]`},
		"base has none":             {layers: []Layer{layerN(1), made(layerN(2), "x")}, want: `[` + pad + `,` + entry("x") + `]`},
		"base's is too short":       {base: `[{"created_by":"a"}]`, layers: []Layer{layerN(1), layerN(2), made(layerN(3), "x")}, want: `[{"created_by":"a"},` + pad + `,` + entry("x") + `]`},
		"base's is too long":        {base: `[{"created_by":"a"},{"created_by":"b"}]`, layers: []Layer{layerN(1), made(layerN(3), "x")}, want: `[{"created_by":"a"},{"created_by":"b","empty_layer":true},` + entry("x") + `]`},
		"empty ones do not count":   {base: `[{"empty_layer":true},{"created_by":"a"},{"empty_layer":true}]`, layers: []Layer{layerN(1), made(layerN(3), "x")}, want: `[{"empty_layer":true},{"created_by":"a"},{"empty_layer":true},` + entry("x") + `]`},
		"base's behind one made":    {base: `[{"created_by":"a"}]`, layers: []Layer{made(layerN(1), "x"), layerN(2)}, want: `[{"created_by":"a","empty_layer":true},` + entry("x") + `,` + pad + `]`},
		"empty_layer false is none": {base: `[{"created_by":"a","empty_layer":false}]`, layers: []Layer{layerN(1)}, want: `[{"created_by":"a","empty_layer":false}]`},
		"null":                      {base: `null`, layers: []Layer{made(layerN(1), "x")}, want: `[` + entry("x") + `]`},
	} {
		t.Run(name, func(t *testing.T) {
			base := `{"os":"linux","architecture":"amd64"}`
			if tc.base != "" {
				base = `{"os":"linux","architecture":"amd64","history":` + tc.base + `}`
			}
			img, err := Assemble(Input{Platform: amd64, Base: []byte(base), Layers: tc.layers, Created: 1})
			require.NoError(t, err)
			var got struct {
				History json.RawMessage
			}
			require.NoError(t, json.Unmarshal(img.Config, &got))
			assert.Equal(t, tc.want, string(got.History))

			var typed ocispec.Image
			require.NoError(t, json.Unmarshal(img.Config, &typed))
			layers := 0
			for _, h := range typed.History {
				if !h.EmptyLayer {
					layers++
				}
			}
			if tc.want != "" {
				assert.Len(t, typed.RootFS.DiffIDs, layers)
			}
		})
	}
}

func TestHistoryOfTheLayer(t *testing.T) {
	at := time.Date(2020, 1, 2, 3, 4, 5, 600, time.FixedZone("x", 3600))
	l := layerN(1)
	l.History = &ocispec.History{Created: &at, CreatedBy: "COPY", Author: "me", Comment: "mine"}
	img, err := Assemble(Input{Platform: amd64, Layers: []Layer{l}})
	require.NoError(t, err)
	assert.Contains(t, string(img.Config), `"history":[{"created":"2020-01-02T02:04:05.0000006Z","created_by":"COPY","author":"me","comment":"mine"}]`)
}

func TestMediaTypes(t *testing.T) {
	const oci = "application/vnd.oci.image.layer.v1.tar"
	for name, tc := range map[string]struct {
		in, oci, docker string // docker "" is an error
	}{
		"tar":              {in: oci, oci: oci, docker: dockerLayer},
		"gzip":             {in: oci + "+gzip", oci: oci + "+gzip", docker: dockerLayer + ".gzip"},
		"zstd":             {in: oci + "+zstd", oci: oci + "+zstd"},
		"docker's":         {in: dockerLayer + ".gzip", oci: oci + "+gzip", docker: dockerLayer + ".gzip"},
		"docker's zstd":    {in: dockerLayer + ".zstd", oci: oci + "+zstd"},
		"docker's plain":   {in: dockerLayer, oci: oci, docker: dockerLayer},
		"foreign":          {in: dockerForeign + ".gzip", oci: ociForeign + "+gzip", docker: dockerForeign + ".gzip"},
		"nondistributable": {in: ociForeign + "+gzip", oci: ociForeign + "+gzip", docker: dockerForeign + ".gzip"},
		"encrypted":        {in: oci + "+gzip+encrypted", oci: oci + "+gzip+encrypted"},
		"anything":         {in: "application/vnd.x", oci: "application/vnd.x"},
		"mixed separator":  {in: oci + ".gzip", oci: oci + ".gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := LayerMediaType(tc.in, false)
			require.NoError(t, err)
			assert.Equal(t, tc.oci, got)
			got, err = LayerMediaType(tc.in, true)
			if tc.docker == "" {
				require.ErrorIs(t, err, ErrInvalid)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.docker, got)
		})
	}
}

func TestAssembleDocker(t *testing.T) {
	foreign := layerN(1)
	foreign.Desc.MediaType = ociForeign + "+gzip"
	foreign.Desc.URLs = []string{"https://example.com/layer"}
	img, err := Assemble(Input{Platform: amd64, Docker: true, Layers: []Layer{foreign, made(layerN(2), "x")}})
	require.NoError(t, err)
	m, err := index.ParseManifest(img.Manifest)
	require.NoError(t, err)
	assert.Equal(t, index.MediaTypeDockerManifest, img.Desc.MediaType)
	assert.Equal(t, index.MediaTypeDockerConfig, m.Config.MediaType)
	assert.Equal(t, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", m.Layers[0].MediaType)
	assert.Equal(t, foreign.Desc.URLs, m.Layers[0].URLs)
	assert.Equal(t, "application/vnd.docker.image.rootfs.diff.tar.gzip", m.Layers[1].MediaType)

	_, err = Assemble(Input{Platform: amd64, Docker: true, Annotations: map[string]string{"a": "b"}})
	require.ErrorIs(t, err, ErrInvalid)

	zstd := layerN(1)
	zstd.Desc.MediaType = ocispec.MediaTypeImageLayerZstd
	_, err = Assemble(Input{Platform: amd64, Docker: true, Layers: []Layer{zstd}})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestAssembleBadDigests(t *testing.T) {
	for name, change := range map[string]func(*Layer){
		"no digest":  func(l *Layer) { l.Desc.Digest = "" },
		"no diffID":  func(l *Layer) { l.DiffID = "" },
		"bad diffID": func(l *Layer) { l.DiffID = "sha256:../x" },
	} {
		t.Run(name, func(t *testing.T) {
			l := layerN(1)
			change(&l)
			_, err := Assemble(Input{Platform: amd64, Layers: []Layer{l}})
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
}

func TestAssembleIsDeterministic(t *testing.T) {
	in := func() Input {
		labels := map[string]string{}
		for i := range 50 {
			labels["l"+strconv.Itoa(i*7%50)] = "v"
		}
		return Input{
			Platform: arm64, Base: []byte(baseConfig), Annotations: labels,
			Layers: []Layer{layerN(1)}, Patch: graph.ConfigPatch{Labels: labels},
		}
	}
	first, err := Assemble(in())
	require.NoError(t, err)
	for range 20 {
		again, err := Assemble(in())
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

// FuzzAssemble: whatever the base's config is, what comes out can be read, and loses no unknown member.
func FuzzAssemble(f *testing.F) {
	for _, seed := range []string{baseConfig, `{}`, `{"config":null,"history":[{}]}`, `{"os":"linux","x":[1]}`, `{"history":[{"empty_layer":"true"}]}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		img, err := Assemble(Input{
			Platform: arm64, Base: base, Layers: []Layer{layerN(1), made(layerN(2), "x")},
			Patch: graph.ConfigPatch{Env: []string{"A=1"}, Labels: map[string]string{"a": "b"}},
		})
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		var before, after map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(base, &before))
		require.NoError(t, json.Unmarshal(img.Config, &after))
		for key := range before {
			if key != "variant" {
				require.Contains(t, after, key)
			}
		}
		var typed ocispec.Image
		require.NoError(t, json.Unmarshal(img.Config, &typed))
		require.Len(t, typed.RootFS.DiffIDs, 2)
		layers := 0
		for _, h := range typed.History {
			if !h.EmptyLayer {
				layers++
			}
		}
		require.Equal(t, 2, layers)
		require.Equal(t, "arm64", typed.Architecture)
	})
}

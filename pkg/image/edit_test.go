package image

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/index"
)

func TestEditConfig(t *testing.T) {
	const raw = `{"z":1.0,"architecture":"amd64","os":"linux","config":{"Env":["A=1"],"Labels":{"a":"b"},"Shell":["x"],"Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":[]}}`
	user, none := "7", ""
	created := time.Unix(5, 0)
	arm, variant := "arm", "v7"
	for name, tc := range map[string]struct {
		edit      Edit
		old, new  string // what is replaced in raw
		wantErr   error
		wholeText string
	}{
		"nothing":            {},
		"user":               {edit: Edit{ConfigPatch: graph.ConfigPatch{User: &user}}, old: `"Volumes":{"/v":{}}}`, new: `"Volumes":{"/v":{}},"User":"7"}`},
		"no user":            {edit: Edit{ConfigPatch: graph.ConfigPatch{User: &none}}},
		"env":                {edit: Edit{ConfigPatch: graph.ConfigPatch{Env: []string{"A=2", "B=3"}}}, old: `["A=1"]`, new: `["A=2","B=3"]`},
		"unset env":          {edit: Edit{UnsetEnv: []string{"A", "none"}}, old: `"Env":["A=1"],`, new: ``},
		"unset label":        {edit: Edit{UnsetLabels: []string{"a"}}, old: `"Labels":{"a":"b"},`, new: ``},
		"unset volume":       {edit: Edit{UnsetVolumes: []string{"/v"}}, old: `,"Volumes":{"/v":{}}`, new: ``},
		"unset port":         {edit: Edit{UnsetPorts: []string{"80"}}},
		"created":            {edit: Edit{Created: &created}, old: `"diff_ids":[]}}`, new: `"diff_ids":[]},"created":"1970-01-01T00:00:05Z"}`},
		"platform":           {edit: Edit{Platform: index.PlatformPatch{Arch: &arm, Variant: &variant}}, old: `"amd64"`, new: `"arm"`, wholeText: `"variant":"v7"`},
		"no such platform":   {edit: Edit{Platform: index.PlatformPatch{Arch: &user}}, wantErr: assert.AnError},
		"a nameless setting": {edit: Edit{ConfigPatch: graph.ConfigPatch{Env: []string{"=x"}}}, wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EditConfig([]byte(raw), tc.edit)
			if tc.wantErr != nil {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			want := strings.Replace(raw, tc.old, tc.new, 1)
			if tc.wholeText != "" {
				require.Contains(t, string(got), tc.wholeText)
				want = string(got)
			}
			assert.Equal(t, want, string(got))
		})
	}
	for _, bad := range []string{`[]`, `{"config":7}`, `{"config":{},"config":{}}`, `{"Config":{}}`} {
		_, err := EditConfig([]byte(bad), Edit{ConfigPatch: graph.ConfigPatch{User: &user}})
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
	spaced := []byte("{ \"os\" : \"linux\" }")
	got, err := EditConfig(spaced, Edit{})
	require.NoError(t, err)
	assert.Equal(t, spaced, got)
}

// TestConfigEditor_history: whatever the history said, afterwards it has an entry for each layer.
func TestConfigEditor_history(t *testing.T) {
	id := digest.FromString("x")
	for name, history := range map[string]string{
		"none":     `[]`,
		"short":    `[{"created_by":"a"}]`,
		"exact":    `[{"created_by":"a"},{"empty_layer":true},{"created_by":"b"}]`,
		"too long": `[{"created_by":"a"},{"created_by":"b"},{"created_by":"c"},{"empty_layer":true}]`,
	} {
		raw := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + id.String() + `","` + id.String() + `"]},"history":` + history + `}`
		t.Run(name, func(t *testing.T) {
			count := func(c *ConfigEditor) (n int) {
				var img ocispec.Image
				require.NoError(t, json.Unmarshal(c.Bytes(), &img))
				for _, h := range img.History {
					if !h.EmptyLayer {
						n++
					}
				}
				assert.Len(t, img.RootFS.DiffIDs, n)
				return n
			}
			c, err := OpenConfig([]byte(raw))
			require.NoError(t, err)
			require.NoError(t, c.Append([]digest.Digest{id}, []ocispec.History{{CreatedBy: "new"}}))
			assert.Equal(t, 3, count(c))

			base, err := OpenConfig([]byte(strings.Replace(raw, `"os"`, `"variant":"v9","os"`, 1)))
			require.NoError(t, err)
			require.NoError(t, c.Rebase(2, base))
			assert.Equal(t, 3, count(c))
			assert.Contains(t, string(c.Bytes()), `"variant":"v9"`)
			require.ErrorIs(t, c.Rebase(9, base), ErrInvalid)

			require.NoError(t, c.Squash(id, ocispec.History{CreatedBy: "all"}))
			assert.Equal(t, 1, count(c))
		})
	}
}

// FuzzEdit: an edit of a manifest or config that it takes keeps every field that it does not know.
func FuzzEdit(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+d+`","size":1,"y":{}},"layers":[],"x":[1e2]}`), "k", "v")
	f.Add([]byte(`{"os":"linux","config":{"Env":["A=1"],"x":1},"y":null}`), "A", "2")
	f.Fuzz(func(t *testing.T, raw []byte, key, value string) {
		if x, err := EditManifest(raw); err == nil {
			if x.Annotate(map[string]string{key: value}) == nil {
				if _, err := x.SetConfig([]byte(value)); err == nil {
					if _, out, err := x.Finish(); err == nil {
						keepsUnknown(t, raw, out, "mediaType", "config", "layers", "annotations")
					}
				}
			}
		}
		out, err := EditConfig(raw, Edit{ConfigPatch: graph.ConfigPatch{Env: []string{key + "=" + value}}, UnsetLabels: []string{key}})
		if err == nil {
			keepsUnknown(t, raw, out, "config")
			again, err := EditConfig(out, Edit{})
			require.NoError(t, err)
			require.Equal(t, out, again)
		}
	})
}

// keepsUnknown compares all members of two documents but some.
func keepsUnknown(t *testing.T, before, after []byte, but ...string) {
	t.Helper()
	a, err := jsontree.Parse(before)
	require.NoError(t, err)
	b, err := jsontree.Parse(after)
	require.NoError(t, err)
	for _, n := range []*jsontree.Node{a, b} {
		for _, key := range but {
			n.Delete(key)
		}
	}
	require.Equal(t, string(a.Bytes()), string(b.Bytes()))
}

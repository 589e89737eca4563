package draft_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

func TestPush(t *testing.T) {
	w := newWorld(t)
	other := serveStore(t, openStore(t, filepath.Join(w.dir, "other")))
	amd64, arm64 := testimage.Image("linux/amd64", layer("1")), testimage.Image("linux/arm64", layer("2"))
	d := w.create("app:1", w.push("a/app:amd64", amd64), w.push("b/app:arm64", arm64))

	t.Run("layers of the same registry are mounted", func(t *testing.T) {
		to := []ref.Ref{w.ref(w.host + "/app:1"), w.ref(w.host + "/app:2")}
		desc, report, err := w.Push(t.Context(), w.ref("app:1"), to, draft.PushOptions{})
		require.NoError(t, err)
		assert.Equal(t, d.Desc.Digest, desc.Digest)
		assert.Zero(t, report.Blobs)
		for _, r := range to {
			got, err := w.Opener.Registry.Resolve(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, d.Desc.Digest, got.Digest)
		}
	})
	t.Run("to another registry they are copied", func(t *testing.T) {
		_, report, err := w.Push(t.Context(), w.ref("app:1"), []ref.Ref{w.ref(other + "/app:1")}, draft.PushOptions{})
		require.NoError(t, err)
		assert.Equal(t, 4, report.Blobs)
		img, err := w.Opener.Open(t.Context(), w.ref(other+"/app:1"))
		require.NoError(t, err)
		entries, err := source.List(t.Context(), img)
		require.NoError(t, err)
		assert.Len(t, entries, 2)
	})
	t.Run("C24: the condition", func(t *testing.T) {
		_, _, err := w.Push(t.Context(), w.ref("app:1"), []ref.Ref{w.ref(other + "/app:1")}, draft.PushOptions{Condition: transfer.Condition{None: true}})
		require.ErrorIs(t, err, transfer.ErrConflict)
	})
	t.Run("the other form", func(t *testing.T) {
		desc, report, err := w.Push(t.Context(), w.ref("app:1"), []ref.Ref{w.ref(other + "/app:docker")}, draft.PushOptions{Form: draft.Docker})
		require.NoError(t, err)
		assert.Equal(t, index.MediaTypeDockerList, desc.MediaType)
		assert.NotEmpty(t, report.Notes, "the manifests stay what they are")
		now, err := w.Get(t.Context(), w.ref("app:1"))
		require.NoError(t, err)
		assert.Equal(t, d.Raw, now.Raw, "and so does the draft")
	})
	t.Run("purge", func(t *testing.T) {
		_, _, err := w.Push(t.Context(), w.ref("app:1"), []ref.Ref{w.ref(other + "/app:last")}, draft.PushOptions{Purge: true})
		require.NoError(t, err)
		_, _, err = w.Push(t.Context(), w.ref("app:1"), nil, draft.PushOptions{})
		require.ErrorIs(t, err, store.ErrNotFound)
	})
	t.Run("a single image, to a layout", func(t *testing.T) {
		testimage.WriteStore(t, w.Store, "single:1", amd64)
		desc, _, err := w.Push(t.Context(), w.ref("single:1"), []ref.Ref{w.ref("oci:out:1")}, draft.PushOptions{})
		require.NoError(t, err)
		assert.Equal(t, amd64.Desc.Digest, desc.Digest)
		_, _, err = w.Push(t.Context(), w.ref("single:1"), []ref.Ref{w.ref("oci:out:1")}, draft.PushOptions{Form: draft.OCI})
		require.ErrorIs(t, err, draft.ErrNotIndex)
	})
}

func TestFromDocker(t *testing.T) {
	w := newWorld(t)
	c := testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/arm64", layer("1"))
	r := w.push("app:arm64", c)
	list := w.ref(w.host + "/app:1")
	dir := filepath.Join(w.dir, "config", "manifests", strings.NewReplacer(":", "-", "/", "_").Replace(list.String()))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	write := func(raw []byte, platform *ocispec.Platform) {
		desc := c.Desc
		desc.Platform = platform
		data, err := json.Marshal(map[string]any{"Ref": r.String(), "Descriptor": desc, "Raw": raw})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "image"), data, 0o600))
	}
	annotated := &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	for name, raw := range map[string][]byte{"with its manifest": c.Raw(), "without": nil, "with another's": []byte("{}")} {
		t.Run(name, func(t *testing.T) {
			write(raw, annotated)
			got, err := w.FromDocker(t.Context(), filepath.Join(w.dir, "config"), list)
			require.NoError(t, err)
			require.Len(t, got, 1)
			assert.Equal(t, annotated, got[0].Entries[0].Platform)
			assert.Equal(t, c.Desc.Digest, got[0].Entries[0].Digest)
		})
	}
	_, err := w.FromDocker(t.Context(), filepath.Join(w.dir, "config"), w.ref(w.host+"/app:2"))
	require.ErrorIs(t, err, source.ErrNotFound)
	write(nil, nil)
	_, err = w.FromDocker(t.Context(), filepath.Join(w.dir, "config"), list)
	require.ErrorIs(t, err, draft.ErrInvalid)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "image"), []byte(`{"Ref":"a/b","Descriptor":{"digest":"`+digest.FromString("").String()+`"}}`), 0o600))
	_, err = w.FromDocker(t.Context(), filepath.Join(w.dir, "config"), list)
	require.ErrorIs(t, err, draft.ErrInvalid)
}

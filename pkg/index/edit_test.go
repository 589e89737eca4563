package index

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

const (
	digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	digestD = "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
)

// strange is an index with fields that image-spec does not know, in an order of its own.
const strange = `{
   "x-first": {"b": 1.0, "a": [null]},
   "manifests": [
      {"platform": {"x-cpu": "fast", "os": "linux", "architecture": "amd64"}, "size": 7, "digest": "` + digestA + `",
       "mediaType": "application/vnd.oci.image.manifest.v1+json", "x-entry": [1e3]},
      {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "` + digestB + `", "size": 7,
       "annotations": {"vnd.docker.reference.type": "attestation-manifest", "z": "1", "vnd.docker.reference.digest": "` + digestA + `"},
       "platform": {"architecture": "unknown", "os": "unknown"}}
   ],
   "mediaType": "application/vnd.oci.image.index.v1+json",
   "schemaVersion": 2
}
`

func edit(t *testing.T, raw string) *Editor {
	t.Helper()
	x, err := Edit([]byte(raw))
	require.NoError(t, err)
	return x
}

func newEditor(t *testing.T, o Options, descs ...ocispec.Descriptor) *Editor {
	t.Helper()
	x, err := NewEditor(o)
	require.NoError(t, err)
	for _, d := range descs {
		require.NoError(t, x.Add(newEntry(t, d), false))
	}
	return x
}

func newEntry(t *testing.T, d ocispec.Descriptor) Entry {
	t.Helper()
	e, err := NewEntry(d)
	require.NoError(t, err)
	return e
}

func finish(t *testing.T, x *Editor) string {
	t.Helper()
	desc, raw, err := x.Finish()
	require.NoError(t, err)
	assert.Equal(t, digest.FromBytes(raw), desc.Digest)
	assert.Equal(t, int64(len(raw)), desc.Size)
	return string(raw)
}

func compact(t *testing.T, raw string) string {
	t.Helper()
	n, err := jsontree.Parse([]byte(raw))
	require.NoError(t, err)
	return string(n.Bytes())
}

func TestEditWithoutChange(t *testing.T) {
	x := edit(t, strange)
	assert.Equal(t, strange, finish(t, x), "nothing changed: the very bytes")
	for i, e := range x.Entries() {
		require.NoError(t, x.Set(i, e))
		require.NoError(t, x.Add(e, false))
	}
	require.NoError(t, x.Annotate(nil, "absent"))
	assert.Equal(t, strange, finish(t, x), "nothing changed: the very bytes")
}

func TestEdit(t *testing.T) {
	text := func(s string) *string { return &s }
	for name, tc := range map[string]struct {
		do      func(t *testing.T, x *Editor) error
		old     string
		new     string
		wantErr error
	}{
		"B14 annotate an entry": {
			do: func(t *testing.T, x *Editor) error {
				e, err := x.Entries()[0].Annotate(map[string]string{"b": "<2>", "a": "1"})
				require.NoError(t, err)
				return x.Set(0, e)
			},
			old: `"x-entry":[1e3]`, new: `"x-entry":[1e3],"annotations":{"a":"1","b":"<2>"}`,
		},
		"B14 an annotation in its place": {
			do: func(t *testing.T, x *Editor) error {
				e, err := x.Entries()[1].Annotate(map[string]string{"z": "2"})
				require.NoError(t, err)
				return x.Set(1, e)
			},
			old: `"z":"1"`, new: `"z":"2"`,
		},
		"B14 the variant": {
			do: func(t *testing.T, x *Editor) error {
				e, err := x.Entries()[0].SetPlatform(PlatformPatch{Variant: text("v2"), OSFeatures: &[]string{"f"}, OSVersion: text("1")})
				require.NoError(t, err)
				return x.Set(0, e)
			},
			old: `"architecture":"amd64"`, new: `"architecture":"amd64","os.version":"1","os.features":["f"],"variant":"v2"`,
		},
		"B14 annotate the index": {
			do:  func(_ *testing.T, x *Editor) error { return x.Annotate(map[string]string{"k": "v"}) },
			old: `"schemaVersion":2`, new: `"schemaVersion":2,"annotations":{"k":"v"}`,
		},
		"B14 append": {
			do: func(t *testing.T, x *Editor) error {
				return x.Add(newEntry(t, entry(digestC, "linux", "arm64", "v8")), false)
			},
			old: `"os":"unknown"}}]`,
			new: `"os":"unknown"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestC + `","size":7,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]`,
		},
		"B13 repoint": {
			do: func(_ *testing.T, x *Editor) error {
				return x.Repoint(digestA, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestC, Size: 9})
			},
			old: `"size":7,"digest":"` + digestA + `"`, new: `"size":9,"digest":"` + digestC + `"`,
		},
		"B11 another image for a platform": {
			do: func(t *testing.T, x *Editor) error {
				return x.Add(newEntry(t, entry(digestC, "linux", "amd64", "v1")), false)
			},
			wantErr: ErrDuplicate,
		},
		"B12 no platform": {
			do: func(t *testing.T, x *Editor) error {
				return x.Add(newEntry(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestC, Size: 1}), false)
			},
			wantErr: ErrInvalid,
		},
		"repoint what is not there": {
			do: func(_ *testing.T, x *Editor) error {
				return x.Repoint(digestC, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestD, Size: 9})
			},
			wantErr: ErrInvalid,
		},
		"no such position": {
			do:      func(_ *testing.T, x *Editor) error { return x.Set(2, x.Entries()[0]) },
			wantErr: ErrInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := edit(t, strange)
			err := tc.do(t, x)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				assert.Equal(t, strange, finish(t, x), "refused: nothing changed")
				return
			}
			want := compact(t, strange)
			require.Contains(t, want, tc.old)
			want = strings.Replace(want, tc.old, tc.new, 1)
			if strings.HasPrefix(name, "B13") {
				want = strings.Replace(want, `"vnd.docker.reference.digest":"`+digestA, `"vnd.docker.reference.digest":"`+digestC, 1)
			}
			assert.Equal(t, want, finish(t, x))
		})
	}
}

func TestEditRemove(t *testing.T) {
	x := edit(t, strange)
	removed := x.Remove(0)
	assert.Len(t, removed, 2, "B13: an attestation goes with what it describes")
	assert.Contains(t, finish(t, x), `"manifests":[]`)
	assert.Contains(t, finish(t, x), `"x-first":{"b":1.0,"a":[null]}`)

	x = edit(t, strange)
	assert.Len(t, x.Remove(1, 1, 7, -1), 1)
	assert.Len(t, x.Entries(), 1)
}

func TestEditReplace(t *testing.T) {
	x := newEditor(t, Options{}, entry(digestA, "linux", "amd64", ""), entry(digestB, "linux", "arm64", ""), attestation(digestD, digestA))
	require.NoError(t, x.Add(newEntry(t, entry(digestC, "linux", "amd64", "")), true))
	entries := x.Entries()
	require.Len(t, entries, 2)
	assert.Equal(t, digest.Digest(digestC), entries[0].Digest, "in the place of the old one")
	assert.Equal(t, digest.Digest(digestB), entries[1].Digest, "B13: the old one's attestation is gone")

	e, err := entries[1].SetPlatform(PatchOf(ocispec.Platform{Architecture: "amd64"}))
	require.NoError(t, err)
	require.ErrorIs(t, x.Set(1, e), ErrDuplicate)
}

func TestSetPlatform(t *testing.T) {
	text := func(s string) *string { return &s }
	for name, tc := range map[string]struct {
		from    *ocispec.Platform
		patch   PlatformPatch
		want    ocispec.Platform
		wantErr bool
	}{
		"new":                       {patch: PlatformPatch{OS: text("windows"), Arch: text("amd64"), OSVersion: text("10.0.1")}, want: ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.1"}},
		"an architecture is linux":  {patch: PlatformPatch{Arch: text("s390x")}, want: ocispec.Platform{OS: "linux", Architecture: "s390x"}},
		"aliases":                   {patch: PlatformPatch{OS: text("macos"), Arch: text("aarch64")}, want: ocispec.Platform{OS: "darwin", Architecture: "arm64"}},
		"an alias with a variant":   {patch: PlatformPatch{Arch: text("armhf")}, want: ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		"the spelling v8 is kept":   {patch: PlatformPatch{Arch: text("arm64"), Variant: text("v8")}, want: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		"the spelling none is kept": {patch: PlatformPatch{Arch: text("arm64")}, want: ocispec.Platform{OS: "linux", Architecture: "arm64"}},
		"a part goes away": {
			from:  &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8", OSFeatures: []string{"a"}},
			patch: PlatformPatch{Variant: text(""), OSFeatures: &[]string{}}, want: ocispec.Platform{OS: "linux", Architecture: "arm64"},
		},
		"no such architecture": {patch: PlatformPatch{Arch: text("z80")}, wantErr: true},
		"no such variant":      {patch: PlatformPatch{Arch: text("arm"), Variant: text("v99")}, wantErr: true},
		"no architecture":      {patch: PlatformPatch{OS: text("linux")}, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEntry(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: 1, Platform: tc.from})
			got, err := e.SetPlatform(tc.patch)
			if tc.wantErr {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, &tc.want, got.Platform)
			assert.Equal(t, tc.from, e.Platform, "the entry it was made from stays")
		})
	}
}

func TestForms(t *testing.T) {
	docker := entry(digestA, "linux", "amd64", "")
	docker.MediaType = MediaTypeDockerManifest
	list := func(t *testing.T) *Editor { return newEditor(t, Options{Docker: true}, docker) }

	t.Run("annotations need OCI's form", func(t *testing.T) {
		x := list(t)
		require.NoError(t, x.Annotate(map[string]string{"k": "v"}))
		assert.Equal(t, ocispec.MediaTypeImageIndex, x.MediaType())
		assert.Len(t, x.Notes(), 1)
		assert.Contains(t, finish(t, x), `"annotations":{"k":"v"}`)
		assert.Contains(t, finish(t, x), MediaTypeDockerManifest, "the manifest stays as it is")
		require.ErrorIs(t, x.Convert(true), ErrInvalid)
		require.NoError(t, x.Annotate(nil, "k"))
		require.NoError(t, x.Convert(true))
		assert.NotContains(t, finish(t, x), "annotations")
	})
	t.Run("an entry's too", func(t *testing.T) {
		x := list(t)
		e, err := x.Entries()[0].Annotate(map[string]string{"k": "v"})
		require.NoError(t, err)
		require.NoError(t, x.Set(0, e))
		assert.Equal(t, ocispec.MediaTypeImageIndex, x.MediaType())
		require.ErrorIs(t, x.Convert(true), ErrInvalid)
	})
	t.Run("and a manifest of OCI's", func(t *testing.T) {
		x := list(t)
		require.NoError(t, x.Add(newEntry(t, entry(digestB, "linux", "arm64", "")), false))
		assert.Equal(t, ocispec.MediaTypeImageIndex, x.MediaType())
		require.NoError(t, x.Convert(true), "when it is asked for")
		assert.Len(t, x.Notes(), 2)
	})
	t.Run("subject and artifactType", func(t *testing.T) {
		x := list(t)
		require.NoError(t, x.SetSubject(&docker))
		assert.NotContains(t, finish(t, x), `"subject":{"mediaType":"`+MediaTypeDockerManifest+`","digest":"`+digestA+`","size":7,"platform"`)
		x.SetArtifactType("application/x")
		assert.Contains(t, finish(t, x), `"artifactType":"application/x"`)
		require.ErrorIs(t, x.Convert(true), ErrInvalid)
		require.NoError(t, x.SetSubject(nil))
		x.SetArtifactType("")
		require.NoError(t, x.Convert(true))
	})
}

func TestExpand(t *testing.T) {
	docs := map[digest.Digest][]byte{}
	fetch := func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		raw, ok := docs[d.Digest]
		if !ok {
			return nil, fmt.Errorf("no %s", d.Digest)
		}
		return raw, nil
	}
	add := func(entries ...ocispec.Descriptor) ocispec.Descriptor {
		raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
		require.NoError(t, err)
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		docs[d.Digest] = raw
		return d
	}
	amd64, arm64 := entry(digestA, "linux", "amd64", ""), entry(digestB, "linux", "arm64", "")
	inner := add(arm64, attestation(digestC, digestB))
	outer := add(amd64, inner, inner)

	got, err := Expand(t.Context(), docs[outer.Digest], fetch)
	require.NoError(t, err)
	require.Len(t, got, 3)
	assert.Equal(t, amd64, got[0].Descriptor)
	assert.Equal(t, arm64, got[1].Descriptor)

	x := edit(t, string(docs[outer.Digest]))
	require.NoError(t, x.Flatten(t.Context(), fetch))
	assert.Len(t, x.Entries(), 3)

	twice := edit(t, string(docs[add(entry(digestD, "linux", "arm64", ""), inner).Digest]))
	before := finish(t, twice)
	require.ErrorIs(t, twice.Flatten(t.Context(), fetch), ErrDuplicate)
	assert.Equal(t, before, finish(t, twice))

	t.Run("B07 deep", func(t *testing.T) {
		at := inner
		for range MaxNesting {
			at = add(at, at, at)
		}
		_, err := Expand(t.Context(), docs[at.Digest], fetch)
		require.ErrorIs(t, err, ErrInvalid)
	})
	t.Run("B07 bomb", func(t *testing.T) {
		at := inner
		for range MaxNesting - 2 {
			all := make([]ocispec.Descriptor, 500)
			for i := range all {
				all[i] = at
			}
			at = add(all...)
		}
		got, err := Expand(t.Context(), docs[at.Digest], fetch)
		require.NoError(t, err)
		assert.Len(t, got, 2)
	})
	t.Run("B08 cycle", func(t *testing.T) {
		self := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digestD, Size: 1}
		loop := add(self)
		docs[self.Digest] = docs[add(amd64, loop).Digest]
		docs[digestD] = docs[loop.Digest]
		_, err := Expand(t.Context(), docs[loop.Digest], fetch)
		require.ErrorIs(t, err, ErrInvalid)
		assert.Contains(t, err.Error(), "cycle")
	})
	t.Run("B25 a nested index is missing", func(t *testing.T) {
		gone := add(amd64)
		outer := add(gone)
		delete(docs, gone.Digest)
		_, err := Expand(t.Context(), docs[outer.Digest], fetch)
		require.Error(t, err)
	})
}

func TestEditLimits(t *testing.T) {
	t.Run("B09 size", func(t *testing.T) {
		x := edit(t, strange)
		require.NoError(t, x.Annotate(map[string]string{"long": strings.Repeat("x", MaxSize)}))
		_, _, err := x.Finish()
		require.ErrorIs(t, err, ErrInvalid)
	})
	t.Run("B10 hostile documents", func(t *testing.T) {
		for _, raw := range []string{``, `{}`, strange + `{}`, strings.Replace(strange, `"size": 7`, `"size": 7, "size": 8`, 1), strings.Replace(strange, `"digest"`, `"Digest"`, 1)} {
			_, err := Edit([]byte(raw))
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
	t.Run("B02 B15 entries", func(t *testing.T) {
		for _, d := range []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:../../x", Size: 1},
			{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: -1},
			{MediaType: ocispec.MediaTypeImageConfig, Digest: digestA, Size: 1},
			{Digest: digestA, Size: 1},
		} {
			_, err := NewEntry(d)
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
}

// FuzzEdit holds edits to what they promise: unknown fields survive, and everything that was not touched is written as it was.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(strange), "k", "v", uint8(0))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+MediaTypeDockerManifest+`","digest":"`+digestA+`","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7","features":["x"]}}],"mediaType":"`+MediaTypeDockerList+`"}`), "a", "", uint8(1))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"annotations":{"a":"1"},"subject":{"mediaType":"m/t","digest":"`+digestB+`","size":0,"u":[{}]}}`), "b", "\u2028", uint8(2))
	f.Fuzz(func(t *testing.T, raw []byte, key, value string, at uint8) {
		x, err := Edit(raw)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		_, same, err := x.Finish()
		require.NoError(t, err)
		require.Equal(t, string(raw), string(same))

		before, err := jsontree.Parse(raw)
		require.NoError(t, err)
		if len(x.Entries()) > 0 {
			i := int(at) % len(x.Entries())
			e, err := x.Entries()[i].Annotate(map[string]string{key: value})
			if err == nil {
				err = x.Set(i, e)
			}
			if err == nil {
				after := rewritten(t, x)
				if after == nil {
					return
				}
				requireSame(t, before, after, "manifests", "mediaType")
				for j, node := range before.Get("manifests").Items() {
					now := after.Get("manifests").Items()[j]
					if i != j {
						require.Equal(t, string(node.Bytes()), string(now.Bytes()))
						continue
					}
					requireSame(t, node, now, "annotations")
				}
			}
		}
		x, err = Edit(raw)
		require.NoError(t, err)
		if x.Annotate(map[string]string{key: value}) == nil {
			if after := rewritten(t, x); after != nil {
				requireSame(t, before, after, "annotations", "mediaType")
			}
		}
		x, err = Edit(raw)
		require.NoError(t, err)
		kept := len(x.Entries()) - len(x.Remove(int(at)))
		require.Len(t, x.Entries(), kept)
		if after := rewritten(t, x); after != nil {
			requireSame(t, before, after, "manifests")
		}
	})
}

// rewritten parses what an editor makes; nil when that is too large.
func rewritten(t *testing.T, x *Editor) *jsontree.Node {
	_, raw, err := x.Finish()
	if err != nil {
		require.ErrorIs(t, err, ErrInvalid)
		return nil
	}
	n, err := jsontree.Parse(raw)
	require.NoError(t, err)
	return n
}

// requireSame requires the members of an object to be written as before, in their order, but for some.
func requireSame(t *testing.T, before, after *jsontree.Node, but ...string) {
	skip := func(keys []string) (out []string) {
		for _, k := range keys {
			if !strings.Contains(" "+strings.Join(but, " ")+" ", " "+k+" ") {
				out = append(out, k)
			}
		}
		return out
	}
	require.Equal(t, skip(before.Keys()), skip(after.Keys()))
	for _, k := range skip(before.Keys()) {
		require.Equal(t, string(before.Get(k).Bytes()), string(after.Get(k).Bytes()))
	}
}

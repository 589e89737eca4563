package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRefs(t *testing.T) {
	s := fresh(t)
	ctx := t.Context()
	long := "registry.example/" + strings.Repeat("Some-Repo/", 60) + "app"
	names := []string{
		"hello", "hello:1.0", "Hello:1.0", "HELLO:1.0", ".", "..", ".hidden", "...", "a/b/../c", "/abs", `c:\x`, "con", "%2e", "a%2fb", "x y",
		"registry.example:5000/team/app:v1@sha256:0000", "ünïcode/日本", long, long + "2", strings.ToUpper(long),
	}
	want := map[string]ocispec.Descriptor{}
	for _, name := range names {
		d := put(t, s, "content of "+name)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
		d.Annotations = map[string]string{"a": name, ocispec.AnnotationRefName: "somebody's"}
		require.NoError(t, s.SetRef(ctx, name, d), name)
		want[name] = d
	}
	for name, d := range want {
		got, err := s.GetRef(name)
		require.NoError(t, err)
		assert.Equal(t, d, got)
	}
	refs, err := s.Refs()
	require.NoError(t, err)
	require.Len(t, refs, len(names))
	for i, r := range refs {
		assert.Equal(t, want[r.Name], r.Desc)
		assert.True(t, i == 0 || refs[i-1].Name < r.Name, "sorted")
	}
	assert.Equal(t, len(names), len(files(t, s.path(refsDir))), "one plain file a ref")

	data, err := os.ReadFile(s.path(indexFile))
	require.NoError(t, err)
	var idx ocispec.Index
	require.NoError(t, json.Unmarshal(data, &idx))
	require.Len(t, idx.Manifests, len(names))
	for i, m := range idx.Manifests {
		assert.Equal(t, refs[i].Name, m.Annotations[ocispec.AnnotationRefName])
		assert.Equal(t, refs[i].Name, m.Annotations["a"])
		assert.Equal(t, refs[i].Desc.Digest, m.Digest)
	}
	sound(t, s)

	require.NoError(t, s.SetRef(ctx, "hello", want["hello:1.0"]), "a ref can be moved")
	got, err := s.GetRef("hello")
	require.NoError(t, err)
	assert.Equal(t, want["hello:1.0"], got)

	for _, name := range names {
		require.NoError(t, s.DeleteRef(ctx, name))
		_, err := s.GetRef(name)
		assert.ErrorIs(t, err, ErrNotFound)
	}
	assert.Empty(t, files(t, s.path(refsDir)))
	sound(t, s)
}

func TestRefNamesThatAreRefused(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "x")
	for what, name := range map[string]string{
		"empty": "", "NUL": "a\x00b", "newline": "a\nb", "escape": "\x1b[31m", "not UTF-8": "a\xff", "bidi": "a\u202eb", "too long": strings.Repeat("a", 1025),
	} {
		t.Run(what, func(t *testing.T) {
			assert.ErrorIs(t, s.SetRef(t.Context(), name, d), ErrInvalid)
			_, err := s.GetRef(name)
			assert.ErrorIs(t, err, ErrInvalid)
			assert.ErrorIs(t, s.DeleteRef(t.Context(), name), ErrInvalid)
		})
	}
}

func TestSetRefWithAWrongSize(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "x")
	d.Size = 2
	assert.ErrorIs(t, s.SetRef(t.Context(), "x", d), ErrCorrupt)
	_, err := s.GetRef("x")
	assert.ErrorIs(t, err, ErrNotFound)
	sound(t, s)
}

// A kill between a ref and index.json is mended by the next Open.
func TestInterruptedIndexIsMended(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "x")
	require.NoError(t, s.SetRef(t.Context(), "x", d))
	before, err := os.ReadFile(s.path(indexFile))
	require.NoError(t, err)
	require.NoError(t, s.SetRef(t.Context(), "y", d))
	require.NoError(t, os.WriteFile(s.path(indexFile), before, 0o600))
	found, err := s.Check(t.Context(), CheckOptions{})
	require.NoError(t, err)
	assert.Equal(t, []string{indexFile}, objects(found))
	require.NoError(t, os.WriteFile(s.path(indexStale), nil, 0o600))

	sound(t, open(t, s.Root()))
	assert.NoFileExists(t, s.path(indexStale))
}

func TestCheckRepairsTheIndex(t *testing.T) {
	s := fresh(t)
	require.NoError(t, s.SetRef(t.Context(), "x", put(t, s, "x")))
	for _, change := range []func(path string) error{
		os.Remove,
		func(p string) error { return os.WriteFile(p, []byte("{}"), 0o600) },
	} {
		require.NoError(t, change(s.path(indexFile)))
		found, err := s.Check(t.Context(), CheckOptions{Repair: true})
		require.NoError(t, err)
		require.Equal(t, []string{indexFile}, objects(found))
		assert.True(t, found[0].Fixed)
		sound(t, s)
	}
	require.NoError(t, os.WriteFile(s.path(layoutFile), []byte("{}"), 0o600))
	_, err := s.Check(t.Context(), CheckOptions{Repair: true})
	require.NoError(t, err)
	sound(t, s)
}

func TestRecords(t *testing.T) {
	s := fresh(t)
	a, b := put(t, s, "a"), put(t, s, "b")
	for key, r := range map[string]Record{
		digest.FromString("k").String(): {Data: []byte("x"), Blobs: []digest.Digest{a.Digest, b.Digest}},
		"k":                             {Data: []byte("one\ntwo\n")},
		"../../../etc/passwd":           {Data: []byte{}},
		"":                              {},
		strings.Repeat("long/Key", 100): {Data: random(1, 1<<20)},
	} {
		err := s.PutRecord("toc", key, r)
		if key == "" {
			assert.ErrorIs(t, err, ErrInvalid)
			continue
		}
		require.NoError(t, err)
		got, err := s.GetRecord("toc", key)
		require.NoError(t, err)
		assert.Equal(t, r, got)
		_, err = s.GetRecord("cache", key)
		assert.ErrorIs(t, err, ErrNotFound, "kinds are apart")
	}
	for _, f := range files(t, s.path("toc")) {
		assert.Equal(t, f, filepath.Base(f))
	}
	require.NoError(t, s.PutRecord("toc", "k", Record{Data: []byte("newer")}))
	got, err := s.GetRecord("toc", "k")
	require.NoError(t, err)
	assert.Equal(t, "newer", string(got.Data))

	require.NoError(t, os.Remove(s.Path(b.Digest)))
	_, err = s.GetRecord("toc", digest.FromString("k").String())
	assert.ErrorIs(t, err, ErrNotFound, "a record whose blobs are gone is no record")
	for _, kind := range []string{"", "blobs", "refs", "index.json", "..", "a/b", "A", "lost+found", strings.Repeat("k", 33)} {
		assert.ErrorIs(t, s.PutRecord(kind, "k", Record{}), ErrInvalid, kind)
		_, err := s.GetRecord(kind, "k")
		assert.ErrorIs(t, err, ErrInvalid, kind)
	}
}

func TestDamagedRecordsAreAbsent(t *testing.T) {
	s := fresh(t)
	path, err := s.recordPath("cache", "k")
	require.NoError(t, err)
	harms := map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
		"truncated": func(b []byte) []byte { return b[:len(b)-1] },
		"flipped":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"longer":    func(b []byte) []byte { return append(b, 0) },
	}
	for name, harm := range harms {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, s.PutRecord("cache", "k", Record{Data: []byte("data")}))
			damage(t, path, harm)
			found, err := s.Check(t.Context(), CheckOptions{})
			require.NoError(t, err)
			assert.Len(t, found, 1)
			_, err = s.GetRecord("cache", "k")
			assert.ErrorIs(t, err, ErrNotFound)
			assert.NoFileExists(t, path)
		})
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/b:c", "A", "%41", "%~", strings.Repeat("é", 200), strings.Repeat("a", 199) + "/", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file := escape(name)
		if name == "" {
			return // no caller lets it pass
		}
		if file == "" || file[0] == '.' || len(file) > maxFileName || strings.ToLower(file) != file || strings.ContainsAny(file, "/\\:\x00 ") {
			t.Fatalf("escape(%q) = %q is no good file name", name, file)
		}
		back, ok := unescape(file)
		if cut := strings.Contains(file, hashMark); cut == ok || ok && back != name {
			t.Fatalf("unescape(escape(%q)) = %q, %v", name, back, ok)
		}
		if back, ok := unescape(name); ok && escape(back) != name {
			t.Fatalf("two files for the ref %q", back)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	good, err := encodeRecord(Record{Data: []byte("x\ny"), Blobs: []digest.Digest{digest.FromString("b")}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"blobs":["sha256:../x"],"size":-1,"sum":""}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("another kind of error: %v", err)
			}
			return
		}
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeRecord(again)
		if err != nil || string(back.Data) != string(r.Data) || len(back.Blobs) != len(r.Blobs) {
			t.Fatalf("%+v became %+v: %v", r, back, err)
		}
	})
}

func FuzzParseRef(f *testing.F) {
	f.Add("hello", []byte(`{"name":"hello","descriptor":{"digest":"`+digest.FromString("x").String()+`","size":1}}`))
	f.Add("hello", []byte(`{"name":"../hello","descriptor":{"digest":"sha256:../x","size":-1}}`))
	f.Fuzz(func(t *testing.T, file string, data []byte) {
		r, err := parseRef(file, data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("another kind of error: %v", err)
			}
			return
		}
		if checkRefName(r.Name) != nil || checkDigest(r.Desc.Digest) != nil || r.Desc.Size < 0 || escape(r.Name) != file {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzParseDocument(f *testing.F) {
	d := ocispec.Descriptor{MediaType: "x", Digest: digest.FromString("x"), Size: 1}
	f.Add(manifestJSON(d, d, d))
	f.Add([]byte(`{"manifests":[{"digest":"` + string(d.Digest) + `"}],"subject":null,"layers":null}`))
	f.Add([]byte(`{"config":[{"digest":"` + string(d.Digest) + `"}]}`))
	f.Add([]byte(`{"config":{"Env":[]},"layers":[{"digest":"sha256:../../x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		es, err := parseDocument(d.Digest, data)
		if err != nil && !errors.Is(err, errOdd) {
			t.Fatalf("another kind of error: %v", err)
		}
		for _, e := range es {
			if checkDigest(e.desc.Digest) != nil {
				t.Fatalf("bad digest %q", e.desc.Digest)
			}
		}
	})
}

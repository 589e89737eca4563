package source

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// tarAt is a layer at hand.
type tarAt struct {
	*bytes.Reader
	reads, closes int
}

func (r *tarAt) ReadAt(p []byte, off int64) (int, error) { r.reads++; return r.Reader.ReadAt(p, off) }
func (r *tarAt) Close() error                            { r.closes++; return nil }

// What has not changed is read from the layer that was made of it, and only if it is there as it was.
func TestUnchangedFilesAreReadFromTheirLayer(t *testing.T) {
	dir := t.TempDir()
	big := string(bytes.Repeat([]byte("b"), smallFile+1))
	old(t, dir, map[string]string{"a": "first", "big": big, "d/b": "second", "d/c": "third", "e": ""})
	data := []byte("....first...second...third")
	made := digest.FromBytes(data)
	sums := LoadSums(nil)
	f := openTree(t, dir, sums)
	if f.stats[0].Ctime == 0 {
		t.Skip("this system says too little of files to remember their digests")
	}
	p := f.Placing()
	for i := range f.TOC.Entries {
		e := &f.TOC.Entries[i]
		if e.Size > 0 {
			_, ok := f.sum(e)
			require.True(t, ok)
			p.Put(e, map[string]int64{"a": 4, "d/b": 12, "d/c": 21, "big": 26}[e.Name])
		}
	}
	p.Done(made)
	saved, changed, err := sums.Save()
	require.NoError(t, err)
	require.True(t, changed)

	read := func(t *testing.T, at *tarAt, openErr error) (out map[string]string) {
		t.Helper()
		again := LoadSums(saved)
		again.Open = func(d digest.Digest) (layer.ReaderAtCloser, error) {
			assert.Equal(t, made, d)
			return at, openErr
		}
		f := openTree(t, dir, again)
		out = map[string]string{}
		for i := range f.TOC.Entries {
			e := &f.TOC.Entries[i]
			if e.Size == 0 {
				continue
			}
			r, err := f.open(e)
			require.NoError(t, err)
			text, err := io.ReadAll(r)
			require.NoError(t, err)
			_, kept := r.(*keptFile)
			if out[e.Name] = string(text); kept {
				out[e.Name] = "kept " + string(text)
			}
			require.NoError(t, r.Close())
		}
		require.NoError(t, f.kept.close())
		return out
	}
	at := &tarAt{Reader: bytes.NewReader(data)}
	assert.Equal(t, map[string]string{"a": "kept first", "big": big, "d/b": "kept second", "d/c": "kept third"}, read(t, at, nil))
	assert.Equal(t, 1, at.reads, "they lie beside each other")
	assert.Equal(t, 1, at.closes)

	t.Run("damaged", func(t *testing.T) {
		bad := bytes.Replace(data, []byte("second"), []byte("SECOND"), 1)
		got := read(t, &tarAt{Reader: bytes.NewReader(bad)}, nil)
		assert.Equal(t, map[string]string{"a": "kept first", "big": big, "d/b": "second", "d/c": "kept third"}, got)
	})
	t.Run("cut", func(t *testing.T) {
		got := read(t, &tarAt{Reader: bytes.NewReader(data[:15])}, nil)
		assert.Equal(t, map[string]string{"a": "kept first", "big": big, "d/b": "second", "d/c": "third"}, got)
	})
	t.Run("gone", func(t *testing.T) {
		got := read(t, nil, errors.New("collected"))
		assert.Equal(t, map[string]string{"a": "first", "big": big, "d/b": "second", "d/c": "third"}, got)
	})
	t.Run("changed", func(t *testing.T) {
		info, err := os.Stat(filepath.Join(dir, "a"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("FIRST"), 0o644)) // as long as before
		require.NoError(t, os.Chtimes(filepath.Join(dir, "a"), info.ModTime(), info.ModTime()))
		got := read(t, &tarAt{Reader: bytes.NewReader(data)}, nil)
		assert.Equal(t, map[string]string{"a": "FIRST", "big": big, "d/b": "kept second", "d/c": "kept third"}, got)
	})
}

// Layers that nothing is in any more are forgotten.
func TestSumsForgetLayers(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, map[string]string{"a": "1", "b": "2"})
	sums := LoadSums(nil)
	for _, text := range []string{"one", "two"} {
		f := openTree(t, dir, sums)
		if f.stats[0].Ctime == 0 {
			t.Skip("this system says too little of files to remember their digests")
		}
		p := f.Placing()
		for i := range f.TOC.Entries {
			_, ok := f.sum(&f.TOC.Entries[i])
			require.True(t, ok)
			p.Put(&f.TOC.Entries[i], int64(512*(i+1)))
		}
		p.Done(digest.FromString(text))
	}
	require.Len(t, sums.layers, 2)
	data, changed, err := sums.Save()
	require.NoError(t, err)
	require.True(t, changed)
	again := LoadSums(data)
	assert.Equal(t, []digest.Digest{digest.FromString("two")}, again.layers)
	require.Len(t, again.known, 2)
	for i, k := range again.known {
		d, at := again.placed(&k)
		assert.Equal(t, digest.FromString("two"), d)
		assert.EqualValues(t, 512*(i+1), at)
	}
}

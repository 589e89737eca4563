package layer

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stargz makes eStargz of a tar, with so many workers.
func stargz(t *testing.T, tar []byte, c Compression, workers int) ([]byte, EstargzInfo) {
	t.Helper()
	var out bytes.Buffer
	info, err := estargzOf(tar, &out, c, workers)
	require.NoError(t, err)
	return out.Bytes(), info
}

func estargzOf(tar []byte, w io.Writer, c Compression, workers int) (EstargzInfo, error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil }
	return writeEstargz(context.Background(), w, open, c, workers)
}

// everyKind is a layer with every kind of member, large files and many small ones.
func everyKind(t *testing.T) ([]byte, map[string]string) {
	t.Helper()
	files := map[string]string{"bin/tool": "program", "empty": "", "big": noise(9<<20 + 17), "exact": noise(estargzChunk), "usr/x": strings.Repeat("x", 511)}
	members := []member{
		dir("bin"), file("bin/tool", files["bin/tool"]), file("empty", ""), file("big", files["big"]), file("exact", files["exact"]),
		dir("usr"), file("usr/x", files["usr/x"]), symlink("usr/link", "../bin/tool"), hardlink("usr/hard", "bin/tool"), file("usr/.wh.gone", ""), file("bin/.wh..wh..opq", ""),
	}
	for i := range 300 {
		name := "usr/" + strings.Repeat("n", i%90+1) + string(rune('a'+i%26)) + digest.FromString(string(rune(i))).Encoded()[:8]
		files[name] = noise(3000 + i*13)
		members = append(members, file(name, files[name]))
	}
	return archive(t, members...), files
}

func TestEstargzIsReadByContainerdsReader(t *testing.T) {
	tar, files := everyKind(t)
	blob, info := stargz(t, tar, Compression{Algorithm: EStargz}, 3)

	z, err := stdgzip.NewReader(bytes.NewReader(blob))
	require.NoError(t, err)
	whole, err := io.ReadAll(z)
	require.NoError(t, err)
	assert.Equal(t, info.DiffID, digest.FromBytes(whole))
	assert.Equal(t, info.Size, int64(len(whole)))
	toc := readTOC(t, whole)
	assert.Equal(t, estargzTOC, toc.Entries[len(toc.Entries)-1].Name)
	assert.Equal(t, readTOC(t, tar).Entries, toc.Entries[:len(toc.Entries)-1], "the layer is what it was")

	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	require.NoError(t, err)
	verifier, err := r.VerifyTOC(info.TOC)
	require.NoError(t, err)
	for name, want := range files {
		e, ok := r.Lookup(name)
		require.True(t, ok, name)
		f, err := r.OpenFile(name)
		require.NoError(t, err, name)
		got, err := io.ReadAll(f)
		require.NoError(t, err, name)
		require.True(t, want == string(got), name)
		assert.Equal(t, digest.FromString(want).String(), e.Digest, name)
		for at := int64(0); at < int64(len(want)); { // chunk by chunk, as a lazy file system reads
			c, ok := r.ChunkEntryForOffset(name, at)
			require.True(t, ok, name)
			v, err := verifier.Verifier(c)
			require.NoError(t, err, name)
			_, err = v.Write([]byte(want)[at : at+c.ChunkSize])
			require.NoError(t, err)
			require.True(t, v.Verified(), "%s at %d", name, at)
			piece, err := stdgzip.NewReader(bytes.NewReader(blob[c.Offset:c.NextOffset()]))
			require.NoError(t, err)
			data := make([]byte, c.ChunkSize)
			_, err = io.ReadFull(piece, data)
			require.NoError(t, err)
			require.True(t, want[at:at+c.ChunkSize] == string(data), "%s at %d", name, at)
			at += c.ChunkSize
		}
	}
	link, ok := r.Lookup("usr/link")
	require.True(t, ok)
	assert.Equal(t, "../bin/tool", link.LinkName)
	hard, ok := r.Lookup("usr/hard")
	require.True(t, ok)
	assert.Equal(t, int64(len("program")), hard.Size)
	for _, name := range []string{"usr/.wh.gone", "bin/.wh..wh..opq"} {
		_, ok := r.Lookup(name)
		assert.True(t, ok, name)
	}
}

// TestEstargzGolden pins the bytes, as TestCompressGolden does.
func TestEstargzGolden(t *testing.T) {
	tar, _ := everyKind(t)
	for level, want := range map[int]digest.Digest{
		0: "sha256:c86e4a8f6a39e2f4258eb1630f5792f17c783375324a12616c373e0ea23f1e85",
		9: "sha256:d69bb7299c657d008ee494ac636e972ba8bb035d1556d5cc6ae44c7a8a7bfe40",
	} {
		for _, workers := range []int{1, 4} {
			blob, _ := stargz(t, tar, Compression{Algorithm: EStargz, Level: level}, workers)
			assert.Equal(t, want, digest.FromBytes(blob), "level %d, %d workers", level, workers)
		}
	}
}

func TestEstargzOfEstargz(t *testing.T) {
	tar, _ := everyKind(t)
	blob, info := stargz(t, tar, Compression{Algorithm: EStargz}, 2)
	r, err := Decompress(context.Background(), bytes.NewReader(blob), Limits{})
	require.NoError(t, err)
	whole, err := io.ReadAll(r)
	require.NoError(t, err)
	again, againInfo := stargz(t, whole, Compression{Algorithm: EStargz}, 2)
	assert.Equal(t, info, againInfo, "the table is replaced, not added to")
	assert.True(t, bytes.Equal(blob, again))
}

func TestEstargzFails(t *testing.T) {
	boom := errors.New("boom")
	tar, _ := everyKind(t)
	_, err := estargzOf(tar, &hookWriter{at: 100, do: func() error { return boom }}, Compression{Algorithm: EStargz}, 2)
	require.ErrorIs(t, err, boom)
	_, err = estargzOf(tar[:len(tar)/2], io.Discard, Compression{Algorithm: EStargz}, 2)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = estargzOf(tar, io.Discard, Compression{Algorithm: EStargz, Level: 10}, 2)
	require.ErrorIs(t, err, ErrInvalid)
	opened := 0
	_, err = Estargz(context.Background(), io.Discard, func() (io.ReadCloser, error) {
		if opened++; opened == 2 { // it became another one
			return io.NopCloser(bytes.NewReader(tar[:1000])), nil
		}
		return io.NopCloser(bytes.NewReader(tar)), nil
	}, Compression{})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, Compress(context.Background(), io.Discard, bytes.NewReader(tar), Compression{Algorithm: EStargz}), ErrInvalid)

	var out bytes.Buffer
	_, err = estargzOf(make([]byte, 1024), &out, Compression{Algorithm: EStargz}, 1)
	require.NoError(t, err)
	_, err = estargz.Open(io.NewSectionReader(bytes.NewReader(out.Bytes()), 0, int64(out.Len())))
	require.NoError(t, err, "an empty layer")
}

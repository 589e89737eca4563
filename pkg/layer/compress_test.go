package layer

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompressGolden pins the bytes: a change of them changes the digest of every image. When the
// library's output changes on purpose, say so in the changelog and set new digests.
func TestCompressGolden(t *testing.T) {
	data := noise(9<<20 + 12345)
	for name, want := range map[string]digest.Digest{
		"gzip":         "sha256:09d29f1896799530be68ce8569158d327a5479178cc122680dfe6576773abfb0",
		"gzip-1":       "sha256:c403262ee76d708bb0c4e33d2f4045b8aa64d355e8e235dd2c2760235f51e8c8",
		"gzip-9":       "sha256:8797e1ebd1e41eac4341912ef98a74819ea5ad39d19c76e082a13b875eb09a02",
		"zstd":         "sha256:0fa52d2e71ad35283b77b0fcd9aa5e468e08a584c656eec820c417ee7a24bbcf",
		"zstd-1":       "sha256:b0d02390d6d316fd5d54fe0b9d8691bd838be06b02bb80c76ef11c9845c96c4a",
		"zstd-7":       "sha256:56b19ac2fa7e63daf22423b8637927a5314866ad977e2178fc5cb98dbd3da748",
		"uncompressed": digest.FromString(data),
	} {
		t.Run(name, func(t *testing.T) {
			alg, level, _ := strings.Cut(name, "-")
			c, err := ParseCompression(alg, level)
			require.NoError(t, err)
			assert.Equal(t, name, c.String())
			for _, workers := range []int{1, 3} {
				h := digest.Canonical.Digester()
				require.NoError(t, compress(context.Background(), h.Hash(), strings.NewReader(data), c, workers))
				assert.Equal(t, want, h.Digest(), "%d workers", workers)
			}
		})
	}
	var empty bytes.Buffer
	require.NoError(t, Compress(context.Background(), &empty, strings.NewReader(""), Compression{}))
	assert.Equal(t, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0}, empty.Bytes())
}

// TestCompressForOthers reads what we write with the standard library, which is no part of it.
func TestCompressForOthers(t *testing.T) {
	data := noise(3<<20 + 7)
	var z bytes.Buffer
	require.NoError(t, Compress(context.Background(), &z, strings.NewReader(data), Compression{}))
	r, err := stdgzip.NewReader(&z)
	require.NoError(t, err)
	r.Multistream(false)
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, data == string(out))
	assert.Zero(t, z.Len(), "one member and nothing after it")
	assert.Empty(t, r.Name)
	assert.True(t, r.ModTime.IsZero())
	assert.Equal(t, byte(255), r.OS)
}

func TestCompressFails(t *testing.T) {
	boom := errors.New("boom")
	for _, alg := range []string{Gzip, Zstd, Uncompressed} {
		c := Compression{Algorithm: alg}
		before := runtime.NumGoroutine()
		err := Compress(context.Background(), io.Discard, &endsWith{strings.NewReader(noise(5 << 20)), boom}, c)
		require.ErrorIs(t, err, boom, alg)
		err = Compress(context.Background(), &hookWriter{at: 100, do: func() error { return boom }}, strings.NewReader(noise(20<<20)), c)
		require.ErrorIs(t, err, boom, alg)
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(boom)
		require.ErrorIs(t, Compress(ctx, io.Discard, strings.NewReader("x"), c), boom, alg)
		ctx, cancel = context.WithCancelCause(context.Background())
		err = Compress(ctx, &hookWriter{at: 100, do: func() error { cancel(boom); return nil }}, repeated("abc", 1<<40), c)
		require.ErrorIs(t, err, boom, alg)
		assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, waitFor, tick, alg)
	}
	require.ErrorIs(t, Compress(context.Background(), io.Discard, strings.NewReader(""), Compression{Algorithm: "lz4"}), ErrInvalid)
	require.ErrorIs(t, Compress(context.Background(), io.Discard, strings.NewReader(""), Compression{Level: 10}), ErrInvalid)
}

func TestParseCompression(t *testing.T) {
	for name, tc := range map[string]struct {
		alg, level  string
		want        Compression
		oci, docker string
		str         string
		wantErr     error
	}{
		"nothing":      {want: Compression{Algorithm: Gzip}, oci: "application/vnd.oci.image.layer.v1.tar+gzip", docker: "application/vnd.docker.image.rootfs.diff.tar.gzip", str: "gzip"},
		"level":        {level: "9", want: Compression{Gzip, 9}, oci: "application/vnd.oci.image.layer.v1.tar+gzip", docker: "application/vnd.docker.image.rootfs.diff.tar.gzip", str: "gzip-9"},
		"zstd":         {alg: "zstd", level: "22", want: Compression{Zstd, 22}, oci: "application/vnd.oci.image.layer.v1.tar+zstd", str: "zstd-22"},
		"zstd default": {alg: "zstd", level: "0", want: Compression{Zstd, 0}, oci: "application/vnd.oci.image.layer.v1.tar+zstd", str: "zstd"},
		"uncompressed": {alg: "uncompressed", want: Compression{Uncompressed, 0}, oci: "application/vnd.oci.image.layer.v1.tar", docker: "application/vnd.docker.image.rootfs.diff.tar", str: "uncompressed"},
		"unknown":      {alg: "lz4", wantErr: ErrInvalid},
		"estargz":      {alg: "estargz", level: "9", want: Compression{EStargz, 9}, oci: "application/vnd.oci.image.layer.v1.tar+gzip", docker: "application/vnd.docker.image.rootfs.diff.tar.gzip", str: "estargz-9"},
		"gzip 0":       {alg: "gzip", level: "0", wantErr: ErrInvalid},
		"gzip 10":      {level: "10", wantErr: ErrInvalid},
		"zstd 23":      {alg: "zstd", level: "23", wantErr: ErrInvalid},
		"negative":     {level: "-1", wantErr: ErrInvalid},
		"no number":    {level: "best", wantErr: ErrInvalid},
		"no levels":    {alg: "uncompressed", level: "1", wantErr: ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseCompression(tc.alg, tc.level)
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, c)
			if err != nil {
				return
			}
			assert.Equal(t, tc.str, c.String())
			m, err := c.MediaType(false)
			require.NoError(t, err)
			assert.Equal(t, tc.oci, m)
			m, err = c.MediaType(true)
			if tc.docker == "" {
				require.ErrorIs(t, err, ErrMediaType)
			}
			assert.Equal(t, tc.docker, m)
		})
	}
	assert.Equal(t, "gzip", Compression{}.String())
	_, err := Compression{Algorithm: "x"}.MediaType(false)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestDecompressStops(t *testing.T) {
	boom := errors.New("boom")
	for _, alg := range []string{Gzip, Zstd} {
		var z bytes.Buffer
		require.NoError(t, Compress(context.Background(), &z, repeated("abc", 64<<20), Compression{Algorithm: alg}))
		ctx, cancel := context.WithCancelCause(context.Background())
		r, err := Decompress(ctx, &z, Limits{})
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, 1000))
		require.NoError(t, err)
		require.NoError(t, r.Close())
		_, err = r.Read(make([]byte, 1))
		require.Error(t, err, "closed")
		cancel(boom)
		_, err = Decompress(ctx, bytes.NewReader(z.Bytes()), Limits{})
		require.ErrorIs(t, err, boom)
	}
}

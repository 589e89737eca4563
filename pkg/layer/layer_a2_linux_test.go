package layer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

// The rows of ROBUSTNESS.md, group a, about sizes and streams.
func TestLayerContents(t *testing.T) {
	ctx := context.Background()

	t.Run("A19_sizes", func(t *testing.T) {
		for _, n := range []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 100} {
			b := ended(rawHeader("x", '0', func(b []byte) { size256(b[124:136], n) }))
			refused(t, ErrInvalid, b)
			for _, typ := range []byte{'x', 'g', 'L', 'K', 'S', '5', '1'} {
				_, err := ReadTOC(ctx, bytes.NewReader(ended(rawHeader("x", typ, func(b []byte) { size256(b[124:136], n); copy(b[157:], "y") }))), Limits{})
				require.Error(t, err, "%c %d", typ, n)
			}
		}
		for _, n := range []int64{1, 512, 1 << 40, 1<<62 + 1} {
			b := rawHeader("x", '0', func(b []byte) { size256(b[124:136], n) })
			refused(t, io.ErrUnexpectedEOF, b)
		}
		refused(t, ErrInvalid, ended(paxHeader("size", "-1"), rawHeader("x", '0', nil)))
		refused(t, ErrInvalid, ended(paxHeader("size", "99999999999999999999"), rawHeader("x", '0', nil)))
		refused(t, ErrInvalid, ended(paxHeader("size", "1e3"), rawHeader("x", '0', nil)))
		refused(t, ErrInvalid, ended(rawHeader("x", '0', func(b []byte) { copy(b[124:], "0000000009x") })))
		refused(t, ErrInvalid, ended(sumHeader(make([]byte, blockSize-1, blockSize)[:blockSize])[:511], []byte{1}))
	})

	t.Run("A20_sparse", func(t *testing.T) {
		data := strings.Repeat("A", 1000) + strings.Repeat("B", 24)
		want := make([]byte, 1<<20)
		copy(want[4096:], data[:1000])
		copy(want[1<<20-24:], data[1000:])
		pairs := []string{"4096", "1000", "1048552", "24"}
		for name, b := range map[string][]byte{
			"1.0": ended(paxHeader("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "1048576"),
				rawHeader("x", '0', func(b []byte) { copy(b[124:], fmt.Sprintf("%011o", 512+len(data))) }),
				blocks("2\n"+strings.Join(pairs, "\n")+"\n"), blocks(data)),
			"0.1": ended(paxHeader("GNU.sparse.numblocks", "2", "GNU.sparse.map", strings.Join(pairs, ","), "GNU.sparse.name", "s", "GNU.sparse.size", "1048576"),
				rawHeader("x", '0', func(b []byte) { copy(b[124:], fmt.Sprintf("%011o", len(data))) }), blocks(data)),
			"0.0": ended(paxHeader("GNU.sparse.size", "1048576", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "4096", "GNU.sparse.numbytes", "1000", "GNU.sparse.offset", "1048552", "GNU.sparse.numbytes", "24"),
				rawHeader("s", '0', func(b []byte) { copy(b[124:], fmt.Sprintf("%011o", len(data))) }), blocks(data)),
			"old GNU": ended(oldSparse("s", int64(len(data)), 1<<20, pairs...), blocks(data)),
		} {
			t.Run(name, func(t *testing.T) {
				_, err := checkChain(t, b)
				require.NoError(t, err)
				assert.Equal(t, string(want), cat(t, mustView(t, b), "s"))
				c := newCanary(t)
				require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr}))
				st, err := os.Stat(filepath.Join(c.root, "s"))
				require.NoError(t, err)
				if sys, ok := st.Sys().(*syscall.Stat_t); assert.True(t, ok) {
					assert.Less(t, sys.Blocks*512, int64(1<<18), "holes are kept")
				}
			})
		}
		header := func(records ...string) []byte {
			return ended(paxHeader(records...), rawHeader("x", '0', nil))
		}
		refused(t, ErrLimit, header("GNU.sparse.major", "0", "GNU.sparse.minor", "1", "GNU.sparse.numblocks", "0", "GNU.sparse.map", "", "GNU.sparse.size", strconv.FormatInt(math.MaxInt64, 10)))
		refused(t, ErrLimit, ended(oldSparse("s", 0, 1<<62)))
		refused(t, ErrInvalid, ended(oldSparse("s", 0, -5)))
		refused(t, ErrInvalid, header("GNU.sparse.map", "0,5", "GNU.sparse.numblocks", "1", "GNU.sparse.size", "10"))
		refused(t, ErrInvalid, header("GNU.sparse.map", "0,5,3", "GNU.sparse.numblocks", "1", "GNU.sparse.size", "10"))
		refused(t, ErrInvalid, header("GNU.sparse.map", "5,0,3,0", "GNU.sparse.numblocks", "2", "GNU.sparse.size", "10"))
		refused(t, ErrInvalid, header("GNU.sparse.map", "0,0", "GNU.sparse.numblocks", "x", "GNU.sparse.size", "10"))
		refused(t, ErrInvalid, header("GNU.sparse.numbytes", "0"))
		refused(t, ErrType, header("GNU.sparse.major", "2", "GNU.sparse.minor", "0"))
		// Ten million pieces: refused before they take memory.
		pieces := "10000000\n" + strings.Repeat("0\n0\n", 100_000)
		refused(t, ErrLimit, ended(paxHeader("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "1"),
			rawHeader("x", '0', func(b []byte) { copy(b[124:], fmt.Sprintf("%011o", len(blocks(pieces)))) }), blocks(pieces)))
		refused(t, ErrInvalid, ended(paxHeader("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "1"),
			rawHeader("x", '0', func(b []byte) { copy(b[124:], "00000001000") }), blocks(strings.Repeat("1", 512))))
	})

	t.Run("A21_extended_headers", func(t *testing.T) {
		for _, typ := range []byte{'x', 'g', 'L', 'K'} {
			refused(t, ErrLimit, ended(rawHeader("x", typ, func(b []byte) { size256(b[124:136], 1<<30) })))
		}
		for _, kv := range [][2]string{{"path", "x"}, {"size", "7"}, {"linkpath", "x"}, {"uid", "0"}, {"gid", "0"}, {"mtime", "1"}, {"SCHILY.xattr.user.a", "b"}, {"GNU.sparse.size", "1"}} {
			refused(t, ErrInvalid, ended(extHeader('g', paxRecord(kv[0], kv[1])), rawHeader("a", '0', nil)))
		}
		got, err := checkChain(t, ended(extHeader('g', paxRecord("comment", "a commit")), rawHeader("a", '0', nil)))
		require.NoError(t, err)
		assert.Len(t, got, 1)
		for _, kv := range [][2]string{{"uid", "-1"}, {"gid", "-1"}, {"uid", "4294967296"}, {"uid", "x"}} {
			refused(t, ErrInvalid, ended(paxHeader(kv[0], kv[1]), rawHeader("a", '0', nil)))
		}
		for _, body := range []string{"5 a=b", "x a=b\n", "6 =ab\n", "99 a=b\n", "3 a\n", "-6 a=b\n", "+6 a=b\n", " 6 a=b\n", "0 a=b\n", "2 \n", "6 a b\n", "\x00\x00"} {
			refused(t, ErrInvalid, ended(extHeader('x', body), rawHeader("a", '0', nil)))
		}
		refused(t, ErrInvalid, ended(paxHeader("path", "x"))) // and no member
		refused(t, io.ErrUnexpectedEOF, paxHeader("path", "x"))
		refused(t, ErrInvalid, ended(extHeader('L', "x\x00")))
	})

	t.Run("A22_bombs", func(t *testing.T) {
		open := func(b []byte, lim Limits) error {
			r, err := Decompress(ctx, bytes.NewReader(b), lim)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		}
		var z bytes.Buffer
		require.NoError(t, Compress(ctx, &z, io.LimitReader(zeros{}, 1<<30+1<<26), Compression{Algorithm: Zstd}))
		require.ErrorIs(t, open(z.Bytes(), Limits{}), ErrLimit)
		require.NoError(t, open(z.Bytes(), Limits{Ratio: 1e6}))
		z.Reset()
		require.NoError(t, Compress(ctx, &z, io.LimitReader(zeros{}, 64<<20), Compression{}))
		require.NoError(t, open(z.Bytes(), Limits{}), "a file of zeros is no attack")
		require.ErrorIs(t, open(z.Bytes(), Limits{Size: 1 << 20}), ErrLimit)
		// A frame that asks for a window of 2 GiB: magic, descriptor without single segment, window exponent 21.
		require.ErrorIs(t, open([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}, Limits{}), ErrLimit)
		// An xz block that asks for a dictionary of 4 GiB: the second one, where it is easy to miss.
		blocks := xzipped(t, xz.WriterConfig{BlockSize: 1000}, archive(t, file("a", "1")))
		at := bytes.LastIndex(blocks, []byte{0x21, 1}) // the last block's LZMA2 filter
		require.Greater(t, at, 30)
		head := at - 2
		for ; blocks[head] == 0 || (int(blocks[head])+1)*4 > 40 || blocks[head+1]&0x3f != 0; head-- {
		}
		end := head + (int(blocks[head])+1)*4
		blocks[at+2] = 40
		binary.LittleEndian.PutUint32(blocks[end-4:], crc32.ChecksumIEEE(blocks[head:end-4]))
		require.ErrorIs(t, open(blocks, Limits{}), ErrLimit)
		// The table of contents counts for itself.
		b := archive(t, file("a", strings.Repeat("x", 10_000)))
		_, err := ReadTOC(ctx, bytes.NewReader(b), Limits{Size: 5000})
		require.ErrorIs(t, err, ErrLimit)
	})

	t.Run("A23_truncation", func(t *testing.T) {
		noise := make([]byte, 1500)
		for i := range noise {
			noise[i] = byte(rand.IntN(256))
		}
		b := archive(t, file("a", string(noise)), symlink(strings.Repeat("l", 200), strings.Repeat("t", 200)), file("b", string(noise[:600])).xattr("user.x", "y"), file("c", "1"))
		end := bytes.LastIndexByte(b, '1')/blockSize*blockSize + blockSize
		whole := readTOC(t, b)
		for n := range len(b) {
			toc, err := ReadTOC(ctx, bytes.NewReader(b[:n]), Limits{})
			if n < end+blockSize {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d of %d bytes", n, len(b))
			} else if err == nil { // only blocks of zeros are missing
				require.NotEqual(t, whole.DiffID, toc.DiffID)
			}
		}
		for n := 0; n < end; n += 509 {
			c := newCanary(t)
			require.ErrorIs(t, Apply(ctx, c.root, bytes.NewReader(b[:n]), ApplyOptions{Ownership: OwnXattr}), io.ErrUnexpectedEOF, n)
		}
		for _, alg := range []string{Gzip, Zstd} {
			var z bytes.Buffer
			require.NoError(t, Compress(ctx, &z, bytes.NewReader(b), Compression{Algorithm: alg}))
			for n := range z.Len() {
				r, err := Decompress(ctx, bytes.NewReader(z.Bytes()[:n]), Limits{})
				if err == nil {
					_, err = io.Copy(io.Discard, r)
					require.NoError(t, r.Close())
				}
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s: %d of %d bytes", alg, n, z.Len())
			}
		}
	})

	t.Run("A24_members_and_garbage", func(t *testing.T) {
		b := archive(t, file("a", "1"))
		var z bytes.Buffer
		for _, part := range [][]byte{b[:700], nil, b[700:]} { // three members
			w := gzip.NewWriter(&z)
			_, err := w.Write(part)
			require.NoError(t, err)
			require.NoError(t, w.Close())
		}
		read := func(b []byte) (*TOC, error) {
			r, err := Decompress(ctx, bytes.NewReader(b), Limits{})
			if err != nil {
				return nil, err
			}
			return ReadTOC(ctx, r, Limits{})
		}
		toc, err := read(z.Bytes())
		require.NoError(t, err)
		assert.Equal(t, digest.FromBytes(b), toc.DiffID)
		_, err = read(append(bytes.Clone(z.Bytes()), "garbage"...))
		require.ErrorIs(t, err, ErrInvalid)

		enc, err := zstd.NewWriter(nil)
		require.NoError(t, err)
		frames := append(enc.EncodeAll(b[:700], nil), []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}...) // and a skippable one
		frames = append(frames, enc.EncodeAll(b[700:], nil)...)
		toc, err = read(frames)
		require.NoError(t, err)
		assert.Equal(t, digest.FromBytes(b), toc.DiffID)
		_, err = read(append(bytes.Clone(frames), "garbage"...))
		require.ErrorIs(t, err, ErrInvalid)

		padded := append(bytes.Clone(b), make([]byte, 9000)...)
		toc = readTOC(t, padded)
		assert.Equal(t, digest.FromBytes(padded), toc.DiffID, "the padding counts")
		assert.Equal(t, int64(len(padded)), toc.Size)
		refused(t, ErrInvalid, append(bytes.Clone(b), "garbage"...))
		refused(t, ErrInvalid, append(bytes.Clone(padded), 1))
		refused(t, ErrInvalid, append(bytes.Clone(b), b...)) // a second archive that others may not see
		forms := map[string][]byte{"bzip2": bzipped(t)}
		for name, c := range map[string]xz.WriterConfig{
			"xz": {}, "xz, blocks": {BlockSize: 700, CheckSum: xz.SHA256}, "xz, crc32": {BlockSize: 1024, CheckSum: xz.CRC32}, "xz, no check": {BlockSize: 512, NoCheckSum: true},
		} {
			forms[name] = xzipped(t, c, b)
		}
		forms["xz, streams"] = slices.Concat(xzipped(t, xz.WriterConfig{}, b[:700]), make([]byte, 8), xzipped(t, xz.WriterConfig{CheckSum: xz.CRC32}, b[700:]), make([]byte, 4))
		for format, data := range forms {
			toc, err := read(data)
			require.NoError(t, err, format)
			assert.Equal(t, "a", toc.Entries[0].Name)
			_, err = read(append(bytes.Clone(data), "garbage!"...))
			require.ErrorIs(t, err, ErrInvalid, format)
			for n := range len(bytes.TrimRight(data, "\x00")) {
				_, err = read(data[:n])
				require.Error(t, err, "%s: %d of %d bytes", format, n, len(data))
				bad := bytes.Clone(data)
				bad[n] ^= 0x10
				got, err := read(bad)
				if err == nil && format != "xz, no check" { // a bit that the decoder does not need
					require.Equal(t, toc, got, "%s: byte %d of %d is wrong", format, n, len(data))
				}
			}
		}
	})

	t.Run("A25_media_types", func(t *testing.T) {
		b := archive(t, file("a", "1"))
		forms := map[string][]byte{"tar": b, "html": append([]byte("<!DOCTYPE html><html>"), make([]byte, 600)...), "xz": append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 600)...)}
		for _, alg := range []string{Gzip, Zstd} {
			var z bytes.Buffer
			require.NoError(t, Compress(ctx, &z, bytes.NewReader(b), Compression{Algorithm: alg}))
			forms[alg] = z.Bytes()
		}
		for mediaType, want := range map[string]string{
			"application/vnd.oci.image.layer.v1.tar": "tar", "application/vnd.docker.image.rootfs.diff.tar": "tar",
			"application/vnd.oci.image.layer.v1.tar+gzip": "gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
			"application/vnd.oci.image.layer.v1.tar+zstd": "zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
		} {
			for found, data := range forms {
				r, err := DecompressLayer(ctx, bytes.NewReader(data), mediaType, Limits{})
				if found == want {
					require.NoError(t, err)
					toc, err := ReadTOC(ctx, r, Limits{})
					require.NoError(t, err)
					assert.Equal(t, digest.FromBytes(b), toc.DiffID)
					continue
				}
				require.ErrorIs(t, err, ErrMediaType)
				assert.ErrorContains(t, err, "declared "+want+", found "+found)
			}
		}
		_, err := DecompressLayer(ctx, bytes.NewReader(b), "application/json", Limits{})
		require.ErrorIs(t, err, ErrMediaType)
		for _, text := range []string{"", "<html>", "hello, this is a text", strings.Repeat("no tar ", 200)} {
			_, err := Decompress(ctx, strings.NewReader(text), Limits{})
			require.ErrorIs(t, err, ErrInvalid, "%q", text)
		}
	})

	t.Run("A26_verified_to_the_end", func(t *testing.T) {
		// Whoever verifies while we read reports it at the end: it must not be lost.
		corrupt := errors.New("digest does not match")
		b := archive(t, file("a", "1"))
		for _, overlay := range []bool{true, false} {
			c := newCanary(t)
			require.ErrorIs(t, Apply(ctx, c.root, &endsWith{bytes.NewReader(b), corrupt}, ApplyOptions{Ownership: OwnXattr, Overlay: overlay}), corrupt)
		}
		_, err := ReadTOC(ctx, &endsWith{bytes.NewReader(b), corrupt}, Limits{})
		require.ErrorIs(t, err, corrupt)
		var z bytes.Buffer
		require.NoError(t, Compress(ctx, &z, bytes.NewReader(b), Compression{}))
		r, err := Decompress(ctx, &endsWith{&z, corrupt}, Limits{})
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		require.ErrorIs(t, err, corrupt)
		b = append(b, make([]byte, 1000)...)
		toc := readTOC(t, b)
		assert.Equal(t, digest.NewDigestFromBytes(digest.SHA256, sum(b)), toc.DiffID)
	})
}

// bzipped is a tar of one file a; the standard library does not write bzip2.
func bzipped(t testing.TB) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWanqkMYAAGz7gMmAAAJAAG8AAADiRJ4ACAggAFRCAAGgaaCKmoGjTQAH2syEQ5tREp1WZpTHBBJBIrAxITaEwwlSXhjhI+J0w6iJMREA+LuSKcKEhU9UhjA=")
	require.NoError(t, err)
	return b
}

func xzipped(t testing.TB, c xz.WriterConfig, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	c.DictCap = 1 << 16
	w, err := c.NewWriter(&b)
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

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
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// The rows of ROBUSTNESS.md, group a, about sizes, streams, metadata and the target; TestLayer has those about names.
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

	t.Run("A27_xattrs", func(t *testing.T) {
		caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep, revision 2
		v3 := "\x01\x00\x00\x03" + caps[4:] + "\xe8\x03\x00\x00"
		uid, gid := os.Geteuid(), os.Getegid()
		members := []member{
			file("o", "").xattr("user.overlay.opaque", "y"), file("r", "").xattr("user.overlay.redirect", "/etc"), dir("d").xattr("user.overlay.opaque", "y"),
			file("t", "").xattr("trusted.overlay.opaque", "y"), file("s", "").xattr("security.selinux", "x"), file("i", "").xattr("security.ima", "x"),
			file("f", "").xattr(OwnerXattr, strings.Repeat("x", 20)), file("u", "").xattr("user.empty", ""), symlink("l", "u").xattr("user.x", "y"),
			file("g", "").xattr("user.manifestctl.other", "x"), file("n", "").xattr("user.overlay.overlay.opaque", "y"),
		}
		if uid == 0 {
			members = append(members, file("c2", "").xattr(xattrCapability, caps), file("c3", "").xattr(xattrCapability, v3))
		}
		for i := range members {
			members[i].uid, members[i].gid = uid, gid
		}
		b := archive(t, members...)
		for _, o := range []ApplyOptions{{Ownership: OwnXattr}, {Ownership: OwnXattr, Overlay: true}, {Ownership: OwnIDs}} {
			c := newCanary(t)
			warned := map[string]string{}
			o.Warn = func(name, text string) { warned[name] += text }
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), o))
			for name, bad := range map[string]string{
				"o": "user.overlay.opaque", "r": "user.overlay.redirect", "d": "user.overlay.opaque", "t": "trusted.overlay.opaque", "i": "security.ima",
				"g": "user.manifestctl.other", "n": "user.overlay.overlay.opaque",
			} {
				n, err := unix.Getxattr(filepath.Join(c.root, name), bad, nil)
				require.Equal(t, unix.ENODATA, err, "%s has %s of %d bytes", name, bad, n)
			}
			for _, name := range []string{"t", "i", "f", "g", "l"} {
				assert.Contains(t, warned[name], "not kept", name)
			}
			assert.NotContains(t, warned, "s")
			var back bytes.Buffer
			require.NoError(t, Diff(ctx, c.root, &back, DiffOptions{Ownership: o.Ownership}))
			got := map[string]Entry{}
			for _, e := range readTOC(t, back.Bytes()).Entries {
				got[e.Name] = e
				assert.Equal(t, []int{uid, gid}, []int{e.UID, e.GID}, e.Name)
			}
			assert.Equal(t, map[string]string{"user.overlay.opaque": "y"}, got["o"].Xattrs)
			assert.Equal(t, map[string]string{"user.overlay.opaque": "y"}, got["d"].Xattrs)
			assert.Equal(t, map[string]string{"user.overlay.overlay.opaque": "y"}, got["n"].Xattrs)
			assert.Equal(t, map[string]string{"user.empty": ""}, got["u"].Xattrs)
			assert.False(t, got["d"].Opaque)
			assert.Empty(t, got["f"].Xattrs)
			if uid == 0 {
				n, err := unix.Getxattr(filepath.Join(c.root, "c3"), xattrCapability, make([]byte, 100))
				require.NoError(t, err)
				assert.Equal(t, capV2Size, n, "the namespace of whoever packed it means nothing here")
				assert.Equal(t, caps, got["c2"].Xattrs[xattrCapability])
				assert.Equal(t, caps, got["c3"].Xattrs[xattrCapability])
				assert.Contains(t, warned["c3"], "namespace")
			}
		}
		if uid != 0 { // a capability that cannot be set is not lost silently
			c := newCanary(t)
			err := Apply(ctx, c.root, bytes.NewReader(archive(t, file("ping", "").xattr(xattrCapability, caps))), ApplyOptions{Ownership: OwnXattr})
			require.ErrorIs(t, err, unix.EPERM)
			assert.ErrorContains(t, err, "ping")
		}
		many := func(n int, name, value string) []byte {
			var records []string
			for i := range n {
				records = append(records, paxXattr+"user."+name+strconv.Itoa(i), value)
			}
			return ended(paxHeader(records...), rawHeader("a", '0', nil))
		}
		refused(t, ErrLimit, many(10_000, "x", "1"))
		refused(t, ErrLimit, many(1, "x", strings.Repeat("v", 64<<10+1)))
		refused(t, ErrLimit, many(3, "x", strings.Repeat("v", 60<<10)))
		refused(t, ErrLimit, many(1, strings.Repeat("n", 255), "1"))
		_, err := ReadTOC(ctx, bytes.NewReader(many(2, "x", strings.Repeat("v", 60<<10))), Limits{})
		require.NoError(t, err)
		// More than the file system takes is an error that names the file.
		c := newCanary(t)
		if err := Apply(ctx, c.root, bytes.NewReader(many(1, "x", strings.Repeat("v", 64<<10))), ApplyOptions{Ownership: OwnXattr}); err != nil {
			assert.ErrorContains(t, err, `"a"`)
			assert.ErrorContains(t, err, "user.x0")
		}
	})

	t.Run("A28_owners_and_modes", func(t *testing.T) {
		var members []member
		for i, id := range []int{0, 1, 65534, 65535, 65536, 1 << 21, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1} {
			n := strconv.Itoa(i)
			members = append(members, file("f"+n, "x").owned(id, 0), dir("d"+n).owned(0, id), symlink("l"+n, "x").owned(id, id), fifo("p"+n).owned(id, id), hardlink("h"+n, "l"+n))
		}
		for i, mode := range []int64{-1, 0o4755, 0o2755, 0o1777, 0o7777, 0o111, 0o4000, 0o200} {
			n := strconv.Itoa(i)
			members = append(members, dir("m"+n).moded(mode), file("m"+n+"/f", "data").moded(mode).xattr("user.x", "y"), dir("m"+n+"/sub").moded(mode), file("m"+n+"/sub/f", "1"))
		}
		b := archive(t, members...)
		_, err := checkChain(t, b)
		require.NoError(t, err)
		// A second layer changes what nobody may enter.
		_, err = checkChain(t, b, archive(t, file("m0/new", "1"), file("m0/f", "2"), file("m0/sub/.wh.f", ""), file(".wh.m5", ""), dir("m0/sub").moded(0o700)))
		require.NoError(t, err)
		if os.Geteuid() == 0 { // real ids: those that the kernel has none for are recorded
			c := newCanary(t)
			warned := map[string]string{}
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnIDs, Warn: func(name, text string) { warned[name] = text }}))
			assert.Contains(t, warned["f9"], "/etc/subuid")
			assert.Contains(t, warned["l9"], "/etc/subuid")
			var back bytes.Buffer
			require.NoError(t, Diff(ctx, c.root, &back, DiffOptions{Ownership: OwnIDs}))
			assert.Equal(t, list(t, mustView(t, b)), list(t, mustView(t, back.Bytes())))
		} else {
			c := newCanary(t)
			err := Apply(ctx, c.root, bytes.NewReader(archive(t, file("a", "").owned(12345, 1))), ApplyOptions{Ownership: OwnIDs})
			require.ErrorIs(t, err, unix.EPERM)
			assert.ErrorContains(t, err, "12345:1")
		}
	})

	t.Run("A29_times", func(t *testing.T) {
		sec := func(b []byte, v int64) { size256(b[136:148], v) }
		times := []int64{-1, -1 << 40, 1e18, math.MaxInt64, math.MinInt64, 0, 1 << 33, -62135596800}
		var parts [][]byte
		for i, v := range times {
			parts = append(parts, rawHeader("t"+strconv.Itoa(i), '0', func(b []byte) { sec(b, v) }), rawHeader("d"+strconv.Itoa(i), '5', func(b []byte) { sec(b, v) }),
				rawHeader("l"+strconv.Itoa(i), '2', func(b []byte) { sec(b, v); copy(b[157:], "x") }))
		}
		b := ended(parts...)
		toc := readTOC(t, b)
		for i, v := range times {
			assert.Equal(t, v, toc.Entries[3*i].ModTime.Unix())
		}
		data, err := toc.MarshalJSON()
		require.NoError(t, err)
		var back TOC
		require.NoError(t, back.UnmarshalJSON(data))
		assert.Equal(t, times[2], back.Entries[6].ModTime.Unix())
		for _, overlay := range []bool{true, false} {
			c := newCanary(t)
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr, Overlay: overlay}))
			require.NoError(t, Diff(ctx, c.root, io.Discard, DiffOptions{Ownership: OwnXattr}))
		}
		for text, want := range map[string]time.Time{
			"1.5": time.Unix(1, 5e8), "-1.5": time.Unix(-2, 5e8), "-0.25": time.Unix(-1, 75e7), "7.garbage": time.Unix(7, 0), "7.123456789123": time.Unix(7, 123456789), "7.": time.Unix(7, 0),
			"garbage": time.Unix(0o777, 0), "": time.Unix(0o777, 0), "99999999999999999999": time.Unix(0o777, 0), "1e9": time.Unix(0o777, 0),
		} {
			b := ended(paxHeader("mtime", text), rawHeader("a", '0', func(b []byte) { copy(b[136:], "00000000777\x00") }))
			assert.True(t, want.Equal(readTOC(t, b).Entries[0].ModTime), "%q is %v", text, readTOC(t, b).Entries[0].ModTime)
			_, err := checkChain(t, b)
			require.NoError(t, err)
		}
		_, err = checkChain(t, ended(rawHeader("a", '0', func(b []byte) { copy(b[136:], "garbage!!!!\x00") })))
		require.NoError(t, err)
	})

	t.Run("A30_entries", func(t *testing.T) {
		b := archive(t, file("a", ""), file("b", ""), file(".wh..wh.aufs", ""), dir("c"))
		_, err := ReadTOC(ctx, bytes.NewReader(b), Limits{Entries: 4})
		require.NoError(t, err)
		_, err = ReadTOC(ctx, bytes.NewReader(b), Limits{Entries: 3})
		require.ErrorIs(t, err, ErrLimit)
		c := newCanary(t)
		require.ErrorIs(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr, Limits: Limits{Entries: 3}}), ErrLimit)
		require.NoError(t, RemoveAll(c.root), "what is there can be removed")
		assert.NoDirExists(t, c.root)
	})

	t.Run("A31_swapped_parent", func(t *testing.T) {
		c := newCanary(t)
		// Names of two directories in turn, so that each is looked up anew.
		var members []member
		for i := range 4 {
			n := strconv.Itoa(i)
			members = append(members, file("p/q/passwd", "evil"), symlink("p/l"+n, "x"), hardlink("p/q/h"+n, "p/q/passwd"), file("p/cron.d", "evil"), dir("p/q/cron.d"),
				file("p/passwd", "evil"), fifo("p/q/f"), file("p/.wh.shadow", ""), file("p/q/.wh.shadow", ""), file("p/shadow", ""), file("p/q/cron.d/.wh..wh..opq", ""))
		}
		b := archive(t, members...)
		evil := filepath.Join(c.root, "evil")
		require.NoError(t, os.Symlink(filepath.Join(c.top, "outside", "etc"), evil))
		require.NoError(t, os.MkdirAll(filepath.Join(c.root, "p", "q"), 0o755))
		root, err := unix.Open(c.root, dirFlags, 0)
		require.NoError(t, err)
		defer unix.Close(root)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		swaps := 0
		for _, name := range []string{"p", "p/q"} {
			p := filepath.Join(c.root, name)
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if unix.Renameat2(unix.AT_FDCWD, evil, unix.AT_FDCWD, p, unix.RENAME_EXCHANGE) == nil && name == "p" {
						swaps++
					}
					for range rand.IntN(20_000) { // now and then the other side gets somewhere
						runtime.KeepAlive(swaps)
					}
				}
			})
		}
		deadline := time.Now().Add(1500 * time.Millisecond)
		rounds := 0
		for ; time.Now().Before(deadline) || rounds < *raceRounds; rounds++ {
			// Any result is right, as long as nothing outside changes.
			Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr}) //nolint:errcheck // see above
			// What the swaps left over is put right for the next ones, not through a link.
			os.Symlink(filepath.Join(c.top, "outside", "etc"), evil)
			os.Mkdir(filepath.Join(c.root, "p"), 0o755)
			if fd, err := openStepwise(root, "p", unix.O_PATH|unix.O_DIRECTORY); err == nil {
				unix.Mkdirat(fd, "q", 0o755)
				unix.Close(fd)
			}
		}
		close(stop)
		wg.Wait()
		t.Logf("%d rounds, %d swaps", rounds, swaps)
		c.check(t)
	})

	t.Run("A32_target", func(t *testing.T) {
		b := archive(t, file("a", "").owned(os.Geteuid(), os.Getegid()))
		for _, own := range []Ownership{OwnIDs, OwnXattr} {
			for _, overlay := range []bool{true, false} {
				o := ApplyOptions{Ownership: own, Overlay: overlay}
				apply := func(dir string) error { return Apply(ctx, dir, bytes.NewReader(b), o) }
				top := t.TempDir()
				real := filepath.Join(top, "real")
				require.NoError(t, os.Mkdir(real, 0o755))
				require.NoError(t, os.Symlink(real, filepath.Join(top, "link")))
				require.NoError(t, os.WriteFile(filepath.Join(top, "file"), nil, 0o600))
				require.ErrorIs(t, apply(filepath.Join(top, "link")), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "link")+"/"), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "file")), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "none")), fs.ErrNotExist)
				if os.Geteuid() == 0 {
					other := filepath.Join(top, "other")
					require.NoError(t, os.Mkdir(other, 0o777))
					require.NoError(t, os.Chown(other, 12345, 12345))
					require.ErrorIs(t, apply(other), ErrTarget)
				} else {
					require.Error(t, apply("/"))
				}
				require.NoError(t, apply(real))
				if overlay {
					require.ErrorIs(t, apply(real), ErrTarget, "not empty")
				} else {
					require.NoError(t, apply(real), "a chain")
				}
			}
		}
		require.Error(t, Apply(ctx, t.TempDir(), bytes.NewReader(b), ApplyOptions{}), "ownership must be said")
	})

	t.Run("A33_types", func(t *testing.T) {
		for _, typ := range []byte("VMDNAIE89aZ\x01\xff") {
			refused(t, ErrType, ended(rawHeader("x", typ, nil)))
		}
		refused(t, ErrType, ended(rawHeader("x", 'S', nil))) // sparse, but not GNU's
		for _, text := range []string{"070701" + strings.Repeat("0", 600), "070707" + strings.Repeat("0", 600), "!<arch>\n" + strings.Repeat(" ", 600)} {
			refused(t, ErrInvalid, []byte(text))
		}
		got, err := checkChain(t, ended(rawHeader("c", '7', nil), rawHeader("old", 0, nil), rawHeader("olddir/", 0, nil)))
		require.NoError(t, err)
		assert.Len(t, got, 3)
		assert.Contains(t, got[2], `"olddir" 5`)
		// A tar in a tar is a file.
		inner := string(archive(t, file("../x", "1")))
		got, err = checkChain(t, archive(t, file("nested.tar", inner)))
		require.NoError(t, err)
		assert.Len(t, got, 1)
		got, err = checkChain(t, ended(rawHeader(strings.Repeat("v", 99), '0', func(b []byte) { copy(b[257:265], make([]byte, 8)) })))
		require.NoError(t, err, "a header from before ustar")
		assert.Len(t, got, 1)
	})

	t.Run("A34_dotdot_data", func(t *testing.T) {
		b := archive(t, dir("..data"), file("..data/x", "1"), symlink("x", "..data/x"), symlink("..2", "..data"), file("..2/y", "2"))
		_, err := checkChain(t, b)
		require.NoError(t, err)
		v := mustView(t, b)
		assert.Equal(t, "1", cat(t, v, "x"))
		assert.Equal(t, "2", cat(t, v, "..data/y"))
		e, ok := v.Lstat("x")
		require.True(t, ok)
		assert.Equal(t, "..data/x", e.Link)
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

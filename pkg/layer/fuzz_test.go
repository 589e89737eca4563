package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seeds are archives of all kinds, valid and not.
func seeds(f testing.TB) [][]byte {
	return [][]byte{
		nil,
		make([]byte, 1024),
		archive(f, dir("a"), file("a/b", "data"), symlink("l", "a"), hardlink("h", "a/b"), fifo("p"), char("c", 1, 3), file("l/x", "1").xattr("user.x", "y")),
		archive(f, file("a/.wh.b", ""), file("a/.wh..wh..opq", ""), dir(".wh..wh.plnk")),
		archive(f, file(strings.Repeat("long/", 60)+"x", "1"), symlink("l", strings.Repeat("t", 300)), file("big", "").owned(1<<31, 1<<30)),
		archive(f, symlink("l", "../../.."), file("l/etc/passwd", "evil"), hardlink("x", "l/etc/passwd"), symlink("m", "m")),
		ended(rawHeader("../x", '0', nil)),
		ended(oldSparse("s", 10, 100, "5", "10"), blocks("0123456789")),
		ended(paxHeader("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "9"), rawHeader("x", '0', func(b []byte) { copy(b[124:], "00000001003") }), blocks("1\n6\n3\n"), blocks("abc")),
		ended(extHeader('g', paxRecord("comment", "x")), extHeader('L', strings.Repeat("n", 120)+"\x00"), extHeader('K', "to\x00"), rawHeader("x", '2', nil)),
		ended(paxHeader("mtime", "-1.5", "uid", "70000", "path", "q", "linkpath", "z", "SCHILY.xattr.user.a", "b"), rawHeader("x", '2', nil)),
		ended(rawHeader("n", '0', func(b []byte) { size256(b[124:136], -1) })),
		ended(rawHeader("g", '0', func(b []byte) { copy(b[257:], "ustar  \x00"); copy(b[345:], "prefix/of/old/go") })),
	}
}

func FuzzReadTOC(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = fixSums(b)
		lim := Limits{Sparse: 1 << 20, Entries: 1000}
		toc, err := ReadTOC(context.Background(), bytes.NewReader(b), lim)
		if err != nil {
			return
		}
		assert.Equal(t, digest.FromBytes(b), toc.DiffID)
		for _, e := range toc.Entries {
			clean, err := cleanName(e.Name, defaultPathLen)
			require.NoError(t, err)
			require.Equal(t, e.Name, clean)
			require.False(t, e.Offset < 0 || e.Offset > toc.Size || e.Size < 0 || e.UID < 0 || e.GID < 0 || e.Mode&^0o7777 != 0, "%+v", e)
		}
		data, err := toc.MarshalBinary()
		require.NoError(t, err)
		var back TOC
		require.NoError(t, back.UnmarshalBinary(data))
		require.True(t, equalTOC(toc, &back))
		sameAsStd(t, b, toc)
		v, err := NewView([]Source{{TOC: toc, Open: func() (ReaderAtCloser, error) { return bytesAt{bytes.NewReader(b)}, nil }}})
		if err != nil {
			return
		}
		require.NoError(t, v.Walk("/", func(e Entry, open func() (io.ReadCloser, error)) error {
			if open == nil {
				return nil
			}
			r, err := open()
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, r)
			require.NoError(t, err)
			require.Equal(t, e.Size, n)
			return r.Close()
		}))
	})
}

// fixSums makes the checksums right, so that a fuzzer gets past them.
func fixSums(b []byte) []byte {
	b = bytes.Clone(b)
	for at := 0; at+blockSize <= len(b); {
		h := b[at : at+blockSize]
		at += blockSize
		if allZero(h) {
			continue
		}
		sumHeader(h)
		if n, ok := parseNumber(h[124:136]); ok && hasData(h[156]) && n > 0 && n < int64(len(b)) {
			at += int(n + padding(n))
		}
	}
	return b
}

func equalTOC(a, b *TOC) bool {
	x, _ := a.MarshalBinary()
	y, _ := b.MarshalBinary()
	return bytes.Equal(x, y)
}

// sameAsStd holds us to the standard library's reader wherever it reads the archive.
func sameAsStd(t *testing.T, b []byte, toc *TOC) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(b))
	at := 0
	for {
		h, err := r.Next()
		if err == io.EOF {
			require.Equal(t, len(toc.Entries), at, "members")
			return
		}
		if err != nil {
			return
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := cleanName(h.Name, defaultPathLen)
		require.NoError(t, err)
		kind, target, err := parseWhiteout(name)
		require.NoError(t, err)
		if kind == whIgnored {
			continue
		}
		require.Less(t, at, len(toc.Entries))
		e := toc.Entries[at]
		at++
		if kind != whNone {
			require.Equal(t, target, e.Name)
			continue
		}
		require.Equal(t, name, e.Name)
		require.Equal(t, []int64{h.Mode & 0o7777, int64(h.Uid), int64(h.Gid)}, []int64{e.Mode, int64(e.UID), int64(e.GID)})
		switch e.Type {
		case tar.TypeReg:
			require.Equal(t, h.Size, e.Size)
			want := sha256.New()
			if _, err := io.Copy(want, r); err != nil {
				return
			}
			var data io.Reader = bytes.NewReader(b[e.Offset:])
			if e.Sparse != nil {
				data = &sparseReader{r: data, extents: e.Sparse, size: e.Size}
			}
			got := sha256.New()
			_, err := io.CopyN(got, data, e.Size)
			require.NoError(t, err)
			require.Equal(t, want.Sum(nil), got.Sum(nil), name)
		case tar.TypeSymlink:
			require.Equal(t, h.Linkname, e.Link)
		case tar.TypeChar, tar.TypeBlock:
			require.Equal(t, []int64{h.Devmajor, h.Devminor}, []int64{e.Major, e.Minor})
		}
		if h.PAXRecords["mtime"] == "" {
			require.Equal(t, h.ModTime.Unix(), e.ModTime.Unix())
		}
	}
}

// TestSameAsStd changes archives at random, more to the point than a fuzzer does, and holds us to the standard library.
func TestSameAsStd(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	values := []byte{0, ' ', '0', '7', '8', 0x80, 0xff, '/', '.', '\n', '=', '1', '5', 'x', 'g', 'L', 'K', 'S', '2'}
	fields := []int{0, 100, 108, 124, 125, 135, 136, 147, 156, 156, 156, 157, 257, 263, 345, 386, 482, 483, 508}
	all, taken := seeds(t)[2:], 0
	for range 5000 {
		b := bytes.Clone(all[rnd.IntN(len(all))])
		for range 1 + rnd.IntN(6) {
			i := rnd.IntN(len(b))
			if rnd.IntN(2) == 0 {
				i = i/blockSize*blockSize + fields[rnd.IntN(len(fields))]
			}
			if rnd.IntN(2) == 0 {
				b[i] = values[rnd.IntN(len(values))]
			} else {
				b[i] ^= 1 << rnd.IntN(8)
			}
		}
		b = fixSums(b)
		toc, err := ReadTOC(context.Background(), bytes.NewReader(b), Limits{Sparse: 1 << 20, Entries: 1000})
		if err != nil {
			continue
		}
		taken++
		sameAsStd(t, b, toc)
	}
	assert.Greater(t, taken, 500)
}

func FuzzTOC(f *testing.F) {
	for _, s := range seeds(f) {
		if toc, err := ReadTOC(context.Background(), bytes.NewReader(s), Limits{}); err == nil {
			b, err := toc.MarshalBinary()
			require.NoError(f, err)
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var toc TOC
		if toc.UnmarshalBinary(b) != nil {
			return
		}
		again, err := toc.MarshalBinary()
		require.NoError(t, err)
		var back TOC
		require.NoError(t, back.UnmarshalBinary(again))
		require.True(t, equalTOC(&toc, &back))
	})
}

func FuzzDecompress(f *testing.F) {
	b := archive(f, file("a", strings.Repeat("hello", 100)))
	f.Add(b)
	for _, alg := range []string{Gzip, Zstd} {
		var z bytes.Buffer
		require.NoError(f, Compress(context.Background(), &z, bytes.NewReader(b), Compression{Algorithm: alg}))
		f.Add(z.Bytes())
	}
	f.Add([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 1})
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decompress(context.Background(), bytes.NewReader(b), Limits{Size: 4 << 20})
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, r)
		require.LessOrEqual(t, n, int64(4<<20))
		if err == nil && Sniff(b) == tarFormat {
			require.Equal(t, int64(len(b)), n)
		}
		require.NoError(t, r.Close())
	})
}

func FuzzCompress(f *testing.F) {
	f.Add([]byte("hello"), uint8(1), uint8(0))
	f.Add(bytes.Repeat([]byte("abcdefgh"), 1000), uint8(0), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, alg, level uint8) {
		c := Compression{Algorithm: []string{Gzip, Zstd}[alg%2], Level: int(level % 10)}
		in := bytes.Repeat(b, 1+int(alg)) // some of more than one block
		var z, z2 bytes.Buffer
		require.NoError(t, compress(context.Background(), &z, bytes.NewReader(in), c, 1))
		require.NoError(t, compress(context.Background(), &z2, slowReader{bytes.NewReader(in)}, c, 3))
		require.True(t, bytes.Equal(z.Bytes(), z2.Bytes()), "the bytes depend on workers or on reads")
		r, err := Decompress(context.Background(), &z, Limits{})
		require.NoError(t, err)
		out, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(in, out))
	})
}

// slowReader reads little at a time.
type slowReader struct{ r io.Reader }

func (s slowReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 777)]) }

// script makes members of few names out of bytes, so that they meet.
func script(b []byte) (layers [][]member) {
	words := []string{"a", "b", "c", "a/b", "a/b/c", "b/a", "c/a", "a/a", "d/e/f", "../a", "/b", "a/../c", "a/c/.."}
	take := func() byte {
		if len(b) == 0 {
			return 0
		}
		c := b[0]
		b = b[1:]
		return c
	}
	var cur []member
	for n := 0; len(b) > 0 && n < 24; n++ {
		op, name, arg := take(), words[:9][int(take())%9], take()
		link := words[int(arg)%len(words)]
		m := member{name: name, uid: int(arg) % 3, gid: int(arg) % 2, time: int64(arg) % 5}
		switch op % 10 {
		case 0, 1:
			m.typ = tar.TypeDir
			m.mode = []int64{0o755, 0o700, 0o1777, -1}[arg%4]
		case 2, 3:
			m.typ, m.data = tar.TypeReg, strings.Repeat("x", int(arg)%7)
			m.mode = []int64{0o644, 0o4755, -1}[arg%3]
		case 4:
			m.typ, m.link = tar.TypeSymlink, link
		case 5:
			m.typ, m.link = tar.TypeLink, link
		case 6:
			dir, base := splitName(name)
			m.typ, m.name = tar.TypeReg, joinName(dir, whPrefix+base)
		case 7:
			m.typ, m.name = tar.TypeReg, opaqueName(name)
			if arg%8 == 0 {
				m.name = whOpaque
			}
		case 8:
			m.typ = tar.TypeFifo
			if arg%2 == 0 {
				m.typ, m.major, m.minor = tar.TypeChar, int64(arg%3), 0
			}
		case 9:
			if len(layers) < 3 {
				layers, cur = append(layers, cur), nil
			}
			continue
		}
		cur = append(cur, m)
	}
	return append(layers, cur)
}

func FuzzBuilder(f *testing.F) {
	f.Add([]byte{0, 3, 0, 2, 4, 1, 9, 0, 0, 6, 0, 0, 2, 3, 1})
	f.Add([]byte{4, 0, 1, 2, 3, 3, 9, 0, 0, 5, 5, 2, 6, 1, 1, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		layers := script(b)
		var below [][]byte
		for _, l := range layers[:len(layers)-1] {
			below = append(below, archive(t, l...))
		}
		base, err := viewOf(below...)
		if err != nil {
			return
		}
		defer base.Close()
		builder := NewBuilder(base, implicitDir.ModTime)
		present := map[string]*member{}
		for _, m := range layers[len(layers)-1] {
			m := m
			name, err := cleanName(m.name, defaultPathLen)
			require.NoError(t, err)
			kind, target, err := parseWhiteout(name)
			require.NoError(t, err)
			switch {
			case kind == whHideDir:
				continue
			case kind == whDelete:
				err, name = builder.Remove(target), target
			default:
				e := Entry{Name: name, Type: m.typ, Link: m.link, Mode: max(m.mode, 0), UID: m.uid, GID: m.gid, Size: int64(len(m.data)), Major: m.major, Minor: m.minor}
				err = builder.Add(e, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(m.data)), nil })
			}
			if err != nil {
				continue
			}
			if kind == whDelete {
				present[name] = nil
			} else {
				present[name] = &m
			}
		}
		var out, again bytes.Buffer
		require.NoError(t, builder.WriteTo(context.Background(), &out))
		require.NoError(t, builder.WriteTo(context.Background(), &again))
		require.Equal(t, out.Bytes(), again.Bytes())
		toc := readTOC(t, out.Bytes())
		require.Empty(t, toc.Duplicates())
		require.True(t, slices.IsSortedFunc(toc.Entries, func(a, b Entry) int { return comparePaths(a.Name, b.Name) }) || slices.ContainsFunc(toc.Entries, func(e Entry) bool { return e.Name == "." }))
		merged := mustView(t, append(below, out.Bytes())...)
		// The last thing that was done is what one sees, as long as nothing could move it.
		symlinks := slices.ContainsFunc(slices.Concat(layers...), func(m member) bool { return m.typ == tar.TypeSymlink })
		if len(present) == 1 && !symlinks {
			for name, m := range present {
				e, ok := merged.Lstat(name)
				require.Equal(t, m != nil, ok)
				if m != nil && m.typ != tar.TypeLink {
					require.Equal(t, []any{m.typ, m.uid}, []any{e.Type, e.UID})
				}
			}
		}
	})
}

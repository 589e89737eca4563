package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// member is one entry of a test archive.
type member struct {
	name, link   string
	typ          byte
	data         string
	mode         int64 // 0: 0755 for directories, else 0644
	uid, gid     int
	time         int64
	major, minor int64
	xattrs       map[string]string
	pax          map[string]string
}

func file(name, data string) member { return member{name: name, typ: tar.TypeReg, data: data} }
func dir(name string) member        { return member{name: name, typ: tar.TypeDir} }
func symlink(name, to string) member {
	return member{name: name, typ: tar.TypeSymlink, link: to}
}
func hardlink(name, to string) member { return member{name: name, typ: tar.TypeLink, link: to} }
func fifo(name string) member         { return member{name: name, typ: tar.TypeFifo} }
func char(name string, major, minor int64) member {
	return member{name: name, typ: tar.TypeChar, major: major, minor: minor}
}

func (m member) owned(uid, gid int) member   { m.uid, m.gid = uid, gid; return m }
func (m member) moded(mode int64) member     { m.mode = mode; return m }
func (m member) at(sec int64) member         { m.time = sec; return m }
func (m member) xattr(name, v string) member { m.xattrs = map[string]string{name: v}; return m }

// archive makes an uncompressed tar with the standard library's writer.
func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{
			Typeflag: m.typ, Name: m.name, Linkname: m.link, Size: int64(len(m.data)), Mode: m.mode, Uid: m.uid, Gid: m.gid,
			ModTime: time.Unix(m.time, 0), Devmajor: m.major, Devminor: m.minor, Format: tar.FormatPAX, PAXRecords: m.pax,
		}
		if m.mode == 0 {
			h.Mode = 0o644
			if m.typ == tar.TypeDir {
				h.Mode = 0o755
			}
		} else if m.mode < 0 {
			h.Mode = 0
		}
		for k, v := range m.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[paxXattr+k] = v
		}
		require.NoError(t, w.WriteHeader(h), "%q", m.name)
		_, err := io.WriteString(w, m.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// rawHeader is a ustar header block whose fields are set as they are, with a right checksum.
func rawHeader(name string, typ byte, set func(b []byte)) []byte {
	b := make([]byte, blockSize)
	copy(b, name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	copy(b[124:], "00000000000\x00")
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	if set != nil {
		set(b)
	}
	return sumHeader(b)
}

// paxHeader is an extended header of records: key, value, key, value.
func paxHeader(records ...string) []byte {
	var b strings.Builder
	for i := 0; i < len(records); i += 2 {
		b.WriteString(paxRecord(records[i], records[i+1]))
	}
	return extHeader('x', b.String())
}

func extHeader(typ byte, body string) []byte {
	h := rawHeader("ext", typ, func(p []byte) { copy(p[124:], fmt.Sprintf("%011o\x00", len(body))) })
	return append(h, blocks(body)...)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for d := len(fmt.Sprint(n)); ; d++ {
		if s := fmt.Sprintf("%d %s=%s\n", n+d, key, value); len(s) == n+d {
			return s
		}
	}
}

func sumHeader(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// ended adds the end marker.
func ended(parts ...[]byte) []byte {
	return append(bytes.Join(parts, nil), make([]byte, 2*blockSize)...)
}

// block pads data to whole blocks.
func blocks(data string) []byte {
	return append([]byte(data), make([]byte, padding(int64(len(data))))...)
}

type bytesAt struct{ *bytes.Reader }

func (bytesAt) Close() error { return nil }

// readTOC reads an archive's table.
func readTOC(t testing.TB, b []byte) *TOC {
	t.Helper()
	toc, err := ReadTOC(context.Background(), bytes.NewReader(b), Limits{})
	require.NoError(t, err)
	return toc
}

func viewOf(layers ...[]byte) (*View, error) {
	var srcs []Source
	for _, b := range layers {
		toc, err := ReadTOC(context.Background(), bytes.NewReader(b), Limits{})
		if err != nil {
			return nil, err
		}
		srcs = append(srcs, Source{TOC: toc, Open: func() (ReaderAtCloser, error) { return bytesAt{bytes.NewReader(b)}, nil }})
	}
	return NewView(srcs)
}

func mustView(t testing.TB, layers ...[]byte) *View {
	t.Helper()
	v, err := viewOf(layers...)
	require.NoError(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

// list describes each file of a view in one line, without the root. What disks do not keep is left out.
func list(t testing.TB, v *View) []string {
	t.Helper()
	var out []string
	err := v.Walk("/", func(e Entry, open func() (io.ReadCloser, error)) error {
		if e.Name == "." {
			return nil
		}
		out = append(out, describeEntry(t, e, open))
		return nil
	})
	require.NoError(t, err)
	return out
}

func describeEntry(t testing.TB, e Entry, open func() (io.ReadCloser, error)) string {
	t.Helper()
	var b strings.Builder
	if e.Type == tar.TypeLink {
		return fmt.Sprintf("%q = %q", e.Name, e.Link)
	}
	if e.Type == tar.TypeSymlink {
		e.Mode = 0o777
	}
	fmt.Fprintf(&b, "%q %c %04o %d:%d @%d", e.Name, e.Type, e.Mode, e.UID, e.GID, e.ModTime.Unix())
	switch e.Type {
	case tar.TypeSymlink:
		fmt.Fprintf(&b, " -> %q", e.Link)
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " dev %d:%d", e.Major, e.Minor)
	case tar.TypeReg:
		r, err := open()
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, e.Size, int64(len(data)), e.Name)
		if len(data) > 40 {
			fmt.Fprintf(&b, " %d bytes %x", len(data), sha256.Sum256(data))
		} else {
			fmt.Fprintf(&b, " %q", data)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		if disk := diskXattr(k); disk != "" && (e.Type == tar.TypeReg || e.Type == tar.TypeDir) && imageXattr(disk) == k {
			fmt.Fprintf(&b, " %s=%q", k, e.Xattrs[k])
		}
	}
	return b.String()
}

// listLinked is list with each hard link described as the file that it is: overlayfs breaks
// links between layers.
func listLinked(t testing.TB, v *View) []string {
	t.Helper()
	var out []string
	for _, name := range names(t, v) {
		e, ok := v.Lstat(name)
		require.True(t, ok)
		out = append(out, describeEntry(t, e, func() (io.ReadCloser, error) { return v.Open(name) }))
	}
	return out
}

// names lists the names of a view without the root.
func names(t testing.TB, v *View) []string {
	t.Helper()
	var out []string
	require.NoError(t, v.Walk("/", func(e Entry, _ func() (io.ReadCloser, error)) error {
		if e.Name != "." {
			out = append(out, e.Name)
		}
		return nil
	}))
	return out
}

func cat(t testing.TB, v *View, name string) string {
	t.Helper()
	r, err := v.Open(name)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return string(b)
}

// size256 sets a number in base 256.
func size256(field []byte, n int64) {
	b := make([]byte, 12)
	fill := byte(0)
	if n < 0 {
		fill = 0xff
	}
	for i := range b {
		b[i] = fill
	}
	binary.BigEndian.PutUint64(b[4:], uint64(n))
	b = b[12-len(field):]
	b[0] |= 0x80
	copy(field, b)
}

// oldSparse is a header of GNU's first sparse format with offset, length pairs.
func oldSparse(name string, size, real int64, pairs ...string) []byte {
	return rawHeader(name, tar.TypeGNUSparse, func(b []byte) {
		copy(b[257:], "ustar  \x00")
		copy(b[124:], fmt.Sprintf("%011o\x00", size))
		for i, p := range pairs {
			n, _ := strconv.ParseInt(p, 10, 64)
			copy(b[386+12*i:], fmt.Sprintf("%011o\x00", n))
		}
		size256(b[483:495], real)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// endsWith reports err in place of io.EOF.
type endsWith struct {
	r   io.Reader
	err error
}

func (e *endsWith) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.EOF {
		err = e.err
	}
	return n, err
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// hookWriter calls do once when at bytes were written.
type hookWriter struct {
	n, at int
	do    func() error
}

func (h *hookWriter) Write(p []byte) (int, error) {
	h.n += len(p)
	if h.n >= h.at && h.do != nil {
		do := h.do
		h.do = nil
		if err := do(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Package testimage builds small images in Go for tests, so that no test needs
// checked-in blobs or a network: layers from files, images from layers, indexes
// from images, written as an OCI layout, an OCI or Docker archive, or into a store.
//
//	base := testimage.Layer(testimage.Dir("etc"), testimage.File("etc/motd", "hi\n"))
//	amd := testimage.Image("linux/amd64", base.Gzip())
//	arm := testimage.Image("linux/arm64", base.Zstd())
//	idx := testimage.Index(amd, arm)
//	testimage.WriteLayout(t, dir, map[string]testimage.Content{"hello:1.0": idx})
//
// Equal calls give equal bytes. It is for tests only: it panics on what cannot be
// built, and builds broken images on request (RawLayer, the fields of Content).
package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Epoch is the modification time of every file, unless Header.ModTime is set.
var Epoch = time.Unix(1577836800, 0).UTC() // 2020-01-01

// Entry is one tar entry. Change Header for owners, times, modes and PAX records.
type Entry struct {
	Header  tar.Header
	Content string // of a regular file
}

// File is a regular file of mode 0644.
func File(name, content string) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

// Exec is a regular file of mode 0755.
func Exec(name, content string) Entry { return File(name, content).Mode(0o755) }

// Dir is a directory of mode 0755.
func Dir(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: 0o755}}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Hardlink is another name of an earlier file.
func Hardlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Fifo is a named pipe.
func Fifo(name string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o644}}
}

// CharDevice is a character device.
func CharDevice(name string, major, minor int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o644, Devmajor: major, Devminor: minor}}
}

// Whiteout removes path of the layers below.
func Whiteout(path string) Entry {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i+1], path[i+1:]
	}
	return File(dir+".wh."+name, "").Mode(0)
}

// Opaque hides what the layers below have in dir.
func Opaque(dir string) Entry {
	return File(strings.TrimSuffix(dir, "/")+"/.wh..wh..opq", "").Mode(0)
}

// Mode returns e with other permission bits.
func (e Entry) Mode(mode int64) Entry {
	e.Header.Mode = mode
	return e
}

// Owner returns e with another owner.
func (e Entry) Owner(uid, gid int) Entry {
	e.Header.Uid, e.Header.Gid = uid, gid
	return e
}

// Xattr returns e with one more extended attribute.
func (e Entry) Xattr(name, value string) Entry {
	records := map[string]string{"SCHILY.xattr." + name: value}
	for k, v := range e.Header.PAXRecords {
		records[k] = v
	}
	e.Header.PAXRecords = records
	return e
}

// LayerData is a layer: its tar, and how it is compressed in an image.
type LayerData struct {
	Tar         []byte
	Compression string // "", "gzip" or "zstd"
	MediaType   string // "" is what fits
}

// Layer writes entries as a tar (PAX), uncompressed until Gzip or Zstd.
func Layer(entries ...Entry) LayerData {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		if h.ModTime.IsZero() {
			h.ModTime = Epoch
		}
		h.Format = tar.FormatPAX
		must(w.WriteHeader(&h), "entry %q", h.Name)
		_, err := w.Write([]byte(e.Content))
		must(err, "entry %q", h.Name)
	}
	must(w.Close(), "layer")
	return LayerData{Tar: buf.Bytes()}
}

// RawLayer is a layer of any bytes.
func RawLayer(tar []byte) LayerData { return LayerData{Tar: tar} }

// Gzip returns l compressed so.
func (l LayerData) Gzip() LayerData {
	l.Compression = "gzip"
	return l
}

// Zstd returns l compressed so.
func (l LayerData) Zstd() LayerData {
	l.Compression = "zstd"
	return l
}

// DiffID is the digest of the tar.
func (l LayerData) DiffID() digest.Digest { return digest.FromBytes(l.Tar) }

// Blob is the layer as it is in an image.
func (l LayerData) Blob() []byte {
	var buf bytes.Buffer
	switch l.Compression {
	case "":
		return l.Tar
	case "gzip":
		w := gzip.NewWriter(&buf)
		_, err := w.Write(l.Tar)
		must(err, "gzip")
		must(w.Close(), "gzip")
	case "zstd":
		w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
		must(err, "zstd")
		_, err = w.Write(l.Tar)
		must(err, "zstd")
		must(w.Close(), "zstd")
	default:
		panic(fmt.Sprintf("testimage: unknown compression %q", l.Compression))
	}
	return buf.Bytes()
}

func must(err error, format string, args ...any) {
	if err != nil {
		panic(fmt.Sprintf("testimage: %s: %v", fmt.Sprintf(format, args...), err))
	}
}

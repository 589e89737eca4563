package layer

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"
)

// tarWriter writes entries so that equal entries give equal bytes: ustar headers, PAX records only
// for what they cannot say, whole seconds, no access or change times, no names of owners.
// These are the bytes that containerd's differ writes.
type tarWriter struct {
	bw  *bufio.Writer
	tw  *tar.Writer
	hdr tar.Header
	buf *[]byte
	// dataAt is where in the archive the data of the last regular file begins.
	dataAt int64
	pos    int64
}

func newTarWriter(w io.Writer) *tarWriter {
	t := &tarWriter{bw: bufio.NewWriterSize(w, 64<<10), buf: bufPool.Get()}
	t.tw = tar.NewWriter((*tarCounter)(t))
	return t
}

// tarCounter counts what is written.
type tarCounter tarWriter

func (t *tarCounter) Write(p []byte) (int, error) {
	n, err := t.bw.Write(p)
	t.pos += int64(n)
	return n, err
}

// header starts an entry; a regular file's Size bytes follow by Write on t.tw.
func (t *tarWriter) header(e *Entry) error {
	t.hdr = tar.Header{
		Typeflag: e.Type, Name: e.Name, Mode: e.Mode & 0o7777, Uid: e.UID, Gid: e.GID,
		ModTime: e.ModTime, Format: tar.FormatPAX,
	}
	h := &t.hdr
	if ns := h.ModTime.Nanosecond(); ns != 0 {
		h.ModTime = h.ModTime.Add(-time.Duration(ns))
	}
	switch e.Type {
	case tar.TypeReg:
		h.Size = e.Size
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeSymlink:
		h.Linkname, h.Mode = e.Link, 0o777 // Linux has no other
	case tar.TypeLink:
		h.Linkname = e.Link
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = e.Major, e.Minor
	case tar.TypeFifo:
	default:
		return fmt.Errorf("%q: %w %q", e.Name, ErrType, e.Type)
	}
	if len(e.Xattrs) > 0 && e.Type != tar.TypeLink {
		h.PAXRecords = make(map[string]string, len(e.Xattrs))
		for k, v := range e.Xattrs {
			h.PAXRecords[paxXattr+k] = v
		}
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("writing %q: %w", e.Name, err)
	}
	t.dataAt = t.pos
	return nil
}

// file writes a regular file with exactly e.Size bytes of r.
func (t *tarWriter) file(e *Entry, r io.Reader) error {
	if err := t.header(e); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tw}, struct{ io.Reader }{r}, *t.buf)
	if errors.Is(err, tar.ErrWriteTooLong) {
		return fmt.Errorf("%q: %w: more than the %d bytes it had", e.Name, ErrChanged, e.Size)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", e.Name, err)
	}
	if n != e.Size {
		return fmt.Errorf("%q: %w: %d bytes instead of %d", e.Name, ErrChanged, n, e.Size)
	}
	return nil
}

// whiteout deletes name of the layers below.
func (t *tarWriter) whiteout(name string) error {
	return t.header(&Entry{Name: whiteoutName(name), Type: tar.TypeReg, ModTime: time.Unix(0, 0)})
}

// opaque hides what dir holds in the layers below.
func (t *tarWriter) opaque(dir string) error {
	return t.header(&Entry{Name: opaqueName(dir), Type: tar.TypeReg, ModTime: time.Unix(0, 0)})
}

// flush writes out what there is without ending the archive. The writer cannot be used afterwards.
func (t *tarWriter) flush() error {
	bufPool.Put(t.buf)
	if err := t.tw.Flush(); err != nil {
		return err
	}
	return t.bw.Flush()
}

// close ends the archive. The writer cannot be used afterwards.
func (t *tarWriter) close() error {
	bufPool.Put(t.buf)
	if err := t.tw.Close(); err != nil {
		return err
	}
	return t.bw.Flush()
}

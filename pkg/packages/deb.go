package packages

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrDeb reports a file that is no Debian package (deb(5)).
var ErrDeb = errors.New("not a Debian package")

const (
	arMagic  = "!<arch>\n"
	arHeader = 60 // name 16, mtime 12, uid 6, gid 6, mode 8, size 10, "`\n"
	// maxMembers bounds what comes before the data; there are two.
	maxMembers = 16
)

// IsDeb reports whether the first 8 bytes of a file are those of an ar archive, which a Debian package is.
func IsDeb(head []byte) bool { return strings.HasPrefix(string(head), arMagic) }

// DebData returns the archive of a Debian package's files as it is in r: a tar, compressed by gzip, xz, zstd, bzip2 or not.
// A truncated one ends with [io.ErrUnexpectedEOF].
func DebData(r io.Reader) (io.Reader, error) { return debMember(r, "data.tar") }

// DebControl returns the archive of what a Debian package says of itself: a tar with "control", compressed as DebData's is.
func DebControl(r io.Reader) (io.Reader, error) { return debMember(r, "control.tar") }

func debMember(r io.Reader, want string) (io.Reader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, fmt.Errorf("%w: it does not begin as an ar archive does", ErrDeb)
	}
	for n := range maxMembers {
		head := make([]byte, arHeader)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, fmt.Errorf("%w: no %s in it: %w", ErrDeb, want, noEOF(err))
		}
		size, err := strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		if err != nil || size < 0 || string(head[58:]) != "`\n" {
			return nil, fmt.Errorf("%w: member %d has a broken header", ErrDeb, n+1)
		}
		name := strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		switch {
		case n == 0 && name != "debian-binary":
			return nil, fmt.Errorf("%w: an ar archive that begins with %q", ErrDeb, name)
		case strings.HasPrefix(name, want):
			return &wholeReader{r: r, left: size}, nil
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return nil, fmt.Errorf("%w: %q is cut off: %w", ErrDeb, name, noEOF(err))
		}
	}
	return nil, fmt.Errorf("%w: no %s among its first %d members", ErrDeb, want, maxMembers)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// wholeReader reads left bytes; fewer are an error.
type wholeReader struct {
	r    io.Reader
	left int64
}

func (w *wholeReader) Read(p []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > w.left {
		p = p[:w.left]
	}
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if w.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

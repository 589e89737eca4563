package packages

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxHeader bounds one package's header: the largest ones, of kernels, have some megabytes.
const maxHeader = 16 << 20

// ReadAt reads a database of size bytes that is no text.
func ReadAt(kind Kind, r io.ReaderAt, size int64) ([]Package, error) {
	p := rpmReader{r: r, size: size}
	var err error
	switch kind {
	case RPMSQLite:
		err = p.sqlite()
	case RPMNdb:
		err = p.ndb()
	case RPMBdb:
		err = p.bdb()
	default:
		err = fmt.Errorf("%w: %s is not read at random", ErrInvalid, kind)
	}
	return sorted(p.out), err
}

// rpmReader reads headers out of a database.
type rpmReader struct {
	r    io.ReaderAt
	size int64
	out  []Package
}

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, a...)...)
}

// bytes reads n bytes at off; what the file does not have is ErrInvalid.
func (p *rpmReader) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > p.size || off > p.size-n {
		return nil, invalid("%d bytes at %d of a file of %d", n, off, p.size)
	}
	b := make([]byte, n)
	if _, err := p.r.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("reading the package database: %w", err)
	}
	return b, nil
}

// The tags of a header that say what a package is.
const (
	tagName, tagVersion, tagRelease, tagEpoch, tagArch = 1000, 1001, 1002, 1003, 1022

	typeInt32, typeString = 4, 6
)

// add reads a header: counts of entries and bytes, entries of tag, type, offset and count, and the data.
func (p *rpmReader) add(b []byte) error {
	if len(b) < 8 {
		return invalid("a header of %d bytes", len(b))
	}
	entries, data := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if entries > 1<<20 || 8+16*entries+data > int64(len(b)) {
		return invalid("a header of %d entries in %d bytes", entries, len(b))
	}
	index, body := b[8:8+16*entries], b[8+16*entries:]
	var pkg Package
	release, epoch := "", ""
	for ; len(index) >= 16; index = index[16:] {
		tag, kind, off := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:]), int64(binary.BigEndian.Uint32(index[8:]))
		if off > int64(len(body)) {
			return invalid("an entry that ends behind its header")
		}
		value := body[off:]
		text := ""
		if kind == typeString {
			n := 0
			for n < len(value) && value[n] != 0 {
				n++
			}
			if n > maxField {
				return invalid("a field of %d bytes", n)
			}
			text = string(value[:n])
		}
		switch tag {
		case tagName:
			pkg.Name = text
		case tagVersion:
			pkg.Version = text
		case tagRelease:
			release = text
		case tagArch:
			pkg.Arch = text
		case tagEpoch:
			if kind == typeInt32 && len(value) >= 4 {
				epoch = fmt.Sprint(binary.BigEndian.Uint32(value), ":")
			}
		}
	}
	if pkg.Name == "" || pkg.Name == "gpg-pubkey" { // keys are kept like packages
		return nil
	}
	if len(p.out) >= maxPackages {
		return invalid("more than %d packages", maxPackages)
	}
	pkg.Manager, pkg.Version = "rpm", epoch+pkg.Version+"-"+release
	p.out = append(p.out, pkg)
	return nil
}

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
)

const blockSize = 512

// header is one member as the tar says it, extended headers merged in, before any rule was applied.
type header struct {
	name, link   string
	typeflag     byte
	mode         int64
	uid, gid     int64
	size         int64 // of the data in the archive
	sec, nsec    int64
	major, minor int64
	xattrs       map[string]string
	gnu          bool // old GNU format, where 'S' has its meaning
	logical      int64
	sparse       []Extent // nil: not sparse
}

// parseBlock reads a header block. The format is POSIX.1-1988 ustar with the
// numbers and the sparse type of GNU and the longer prefix rules of star.
func parseBlock(b []byte, h *header) error {
	*h = header{}
	if err := checkSum(b); err != nil {
		return err
	}
	var p numbers
	h.name = cString(b[0:100])
	h.mode = p.parse(b[100:108])
	h.uid = p.parse(b[108:116])
	h.gid = p.parse(b[116:124])
	h.size = p.parse(b[124:136])
	if sec, ok := parseNumber(b[136:148]); ok {
		h.sec = sec // a time that is no number is no reason to refuse the content
	}
	h.typeflag = b[156]
	h.link = cString(b[157:257])
	prefix := ""
	switch {
	case string(b[257:263]) == "ustar\x00" && string(b[508:512]) == "tar\x00":
		prefix = cString(b[345:476])
	case string(b[257:263]) == "ustar\x00":
		prefix = cString(b[345:500])
	case string(b[257:265]) == "ustar  \x00":
		h.gnu = true
		// Old writers of Go put a prefix where GNU has atime and ctime (golang.org/issue/12594).
		if !gnuTimes(b) {
			if s := cString(b[345:500]); isASCII(s) {
				prefix = s
			}
		}
	default:
		if p.bad {
			return fmt.Errorf("%w: header with a number that is none", ErrInvalid)
		}
		return nil
	}
	h.major = p.parse(b[329:337])
	h.minor = p.parse(b[337:345])
	if prefix != "" {
		h.name = prefix + "/" + h.name
	}
	if p.bad {
		return fmt.Errorf("%w: header with a number that is none", ErrInvalid)
	}
	return nil
}

func gnuTimes(b []byte) bool {
	for _, f := range [][]byte{b[345:357], b[357:369]} {
		if f[0] == 0 {
			continue
		}
		if _, ok := parseNumber(f); !ok {
			return false
		}
	}
	return true
}

func checkSum(b []byte) error {
	want, ok := parseOctal(b[148:156])
	if !ok {
		return fmt.Errorf("%w: header without a checksum", ErrInvalid)
	}
	var unsigned, signed int64
	for i, c := range b[:blockSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if want != unsigned && want != signed {
		return fmt.Errorf("%w: header checksum is %d, not %d", ErrInvalid, unsigned, want)
	}
	return nil
}

// numbers parses fields and remembers whether one was bad.
type numbers struct{ bad bool }

func (p *numbers) parse(b []byte) int64 {
	n, ok := parseNumber(b)
	if !ok {
		p.bad = true
	}
	return n
}

// parseNumber reads an octal number, or GNU's base-256 when the first bit is set.
func parseNumber(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		return parseOctal(b)
	}
	inv := byte(0) // 0xff when the number is negative
	if b[0]&0x40 != 0 {
		inv = 0xff
	}
	var x uint64
	for i, c := range b {
		c ^= inv
		if i == 0 {
			c &= 0x7f
		}
		if x>>56 > 0 {
			return 0, false
		}
		x = x<<8 | uint64(c)
	}
	if x>>63 > 0 {
		return 0, false
	}
	if inv == 0xff {
		return ^int64(x), true
	}
	return int64(x), true
}

// parseOctal reads octal digits between blanks and NULs; nothing at all is 0.
func parseOctal(b []byte) (int64, bool) {
	b = bytes.Trim(b, " \x00")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if len(b) > 21 {
		return 0, false
	}
	var x uint64
	for _, c := range b {
		if c < '0' || c > '7' || x>>60 > 0 {
			return 0, false
		}
		x = x<<3 | uint64(c-'0')
	}
	return int64(x), true
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}

// normalType maps the flags that mean a regular file or, by a trailing slash, a directory.
func (h *header) normalType() {
	switch h.typeflag {
	case '\x00', tar.TypeCont:
		if h.typeflag == 0 && strings.HasSuffix(h.name, "/") {
			h.typeflag = tar.TypeDir
		} else {
			h.typeflag = tar.TypeReg
		}
	case tar.TypeGNUSparse:
		h.typeflag = tar.TypeReg
	}
}

// hasData reports whether data blocks follow a header of this type.
func hasData(typeflag byte) bool {
	switch typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return false
	}
	return true
}

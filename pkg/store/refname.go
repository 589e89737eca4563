package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxRefName  = 1024 // bytes
	maxFileName = 200  // bytes, below every file system's 255
	hashMark    = "%~" // before the hash of what does not fit; no escape begins so
)

// checkRefName accepts every printable name: what a name means is package ref's business.
func checkRefName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("ref name: %w: it is empty", ErrInvalid)
	case len(name) > maxRefName:
		return fmt.Errorf("ref name %.40q...: %w: %d bytes, at most %d", name, ErrInvalid, len(name), maxRefName)
	case !utf8.ValidString(name):
		return fmt.Errorf("ref name %q: %w: it is not UTF-8", name, ErrInvalid)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("ref name %q: %w: %q cannot be printed", name, ErrInvalid, r)
		}
	}
	return nil
}

// escape makes a file name of any text. Upper case is escaped, so that file
// systems which fold case keep names apart; a long name ends in its hash.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	s := b.String()
	if len(s) <= maxFileName {
		return s
	}
	sum := sha256.Sum256([]byte(name))
	tail := hashMark + hex.EncodeToString(sum[:])
	head := s[:maxFileName-len(tail)]
	if i := strings.LastIndexByte(head, '%'); i > len(head)-3 {
		head = head[:i] // no half escape
	}
	return head + tail
}

// unescape is the inverse of escape for names that are not cut; for those ok is false.
func unescape(file string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		if file[i] != '%' {
			b.WriteByte(file[i])
			continue
		}
		if i+3 > len(file) {
			return "", false
		}
		c, err := hex.DecodeString(file[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.Write(c)
		i += 2
	}
	name = b.String()
	return name, escape(name) == file
}

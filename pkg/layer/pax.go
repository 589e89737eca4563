package layer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// maxExtended bounds one extended header (a PAX header, a GNU long name, a sparse map), in bytes.
const maxExtended = 1 << 20

const paxXattr = "SCHILY.xattr."

// pax is what one extended header says; the last one before a member counts.
type pax struct {
	path, link       string
	size, uid, gid   int64
	hasSize          bool
	hasUID, hasGID   bool
	sec, nsec        int64
	hasTime          bool
	xattrs           map[string]string
	sparseName       string
	sparseMajor      string
	sparseMinor      string
	sparseBlocks     string
	sparseMap        string
	sparseRealSize   string
	sparseSize       string
	sparsePairs      []string // format 0.0
	hasSparse        bool
	globalOverriding string // first key that would change a member
}

// parsePAX reads the records "LENGTH KEY=VALUE\n" of an extended header (POSIX.1-2001).
func parsePAX(b []byte, p *pax) error {
	*p = pax{}
	for len(b) > 0 {
		sp := bytes.IndexByte(b, ' ')
		if sp < 1 || sp > 19 {
			return fmt.Errorf("%w: extended header without a length", ErrInvalid)
		}
		n, err := strconv.ParseInt(string(b[:sp]), 10, 64)
		if err != nil || n < int64(sp)+2 || n > int64(len(b)) || b[n-1] != '\n' || b[0] == '+' || b[0] == '-' {
			return fmt.Errorf("%w: extended header with length %.20q", ErrInvalid, b[:sp])
		}
		rec := b[sp+1 : n-1]
		b = b[n:]
		eq := bytes.IndexByte(rec, '=')
		if eq < 1 {
			return fmt.Errorf("%w: extended header without a key", ErrInvalid)
		}
		if err := p.record(string(rec[:eq]), string(rec[eq+1:])); err != nil {
			return err
		}
	}
	if len(p.sparsePairs)%2 != 0 {
		return fmt.Errorf("%w: sparse map of odd length", ErrInvalid)
	}
	return nil
}

func (p *pax) record(key, value string) error {
	if strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%w: NUL in the extended header's key %q", ErrInvalid, key)
	}
	if p.globalOverriding == "" && overrides(key) {
		p.globalOverriding = key
	}
	number := func(dst *int64, has *bool) error {
		if value == "" {
			*has = false
			return nil
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s is %.40q", ErrInvalid, key, value)
		}
		*dst, *has = n, true
		return nil
	}
	switch key {
	case "path", "linkpath", "GNU.sparse.name":
		if strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("%w: NUL in %s", ErrInvalid, key)
		}
		switch key {
		case "path":
			p.path = value
		case "linkpath":
			p.link = value
		default:
			p.sparseName = value
		}
	case "size":
		return number(&p.size, &p.hasSize)
	case "uid":
		return number(&p.uid, &p.hasUID)
	case "gid":
		return number(&p.gid, &p.hasGID)
	case "mtime":
		p.sec, p.nsec, p.hasTime = parsePAXTime(value)
	case "GNU.sparse.major":
		p.sparseMajor, p.hasSparse = value, true
	case "GNU.sparse.minor":
		p.sparseMinor, p.hasSparse = value, true
	case "GNU.sparse.numblocks":
		p.sparseBlocks = value
	case "GNU.sparse.map":
		p.sparseMap, p.hasSparse = value, true
	case "GNU.sparse.realsize":
		p.sparseRealSize = value
	case "GNU.sparse.size":
		p.sparseSize = value
	case "GNU.sparse.offset", "GNU.sparse.numbytes":
		if (len(p.sparsePairs)%2 == 0) != (key == "GNU.sparse.offset") || strings.Contains(value, ",") {
			return fmt.Errorf("%w: sparse map out of order", ErrInvalid)
		}
		p.sparsePairs, p.hasSparse = append(p.sparsePairs, value), true
	default:
		if name, ok := strings.CutPrefix(key, paxXattr); ok && name != "" {
			if p.xattrs == nil {
				p.xattrs = map[string]string{}
			}
			p.xattrs[name] = value
		}
	}
	return nil
}

// overrides reports whether a global record of this key would change members: nobody
// may write those for a layer, and readers disagree about what they mean.
func overrides(key string) bool {
	switch key {
	case "path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "hdrcharset":
		return true
	}
	return strings.HasPrefix(key, paxXattr) || strings.HasPrefix(key, "GNU.sparse.")
}

// parsePAXTime reads "[-]SECONDS[.FRACTION]". What is no time is reported as absent: the header's own then holds.
func parsePAXTime(s string) (sec, nsec int64, ok bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	for i := range 9 {
		d := int64(0)
		if i < len(frac) {
			if frac[i] < '0' || frac[i] > '9' {
				return sec, 0, true // the seconds are good
			}
			d = int64(frac[i] - '0')
		}
		nsec = nsec*10 + d
	}
	if nsec > 0 && strings.HasPrefix(whole, "-") {
		if sec == minInt64 {
			return sec, 0, true
		}
		return sec - 1, 1e9 - nsec, true
	}
	return sec, nsec, true
}

const minInt64 = -1 << 63

// apply puts the extended header's values over the block's.
func (p *pax) apply(h *header) {
	if p.path != "" {
		h.name = p.path
	}
	if p.link != "" {
		h.link = p.link
	}
	if p.hasSize {
		h.size = p.size
	}
	if p.hasUID {
		h.uid = p.uid
	}
	if p.hasGID {
		h.gid = p.gid
	}
	if p.hasTime {
		h.sec, h.nsec = p.sec, p.nsec
	}
	h.xattrs = p.xattrs
}

package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"hash"
	"io"
	"math"
	"syscall"
	"time"
)

// The defaults of [Limits].
const (
	defaultEntries   = 5_000_000
	defaultPathLen   = 4096
	defaultRatio     = 200
	defaultXattrSize = 128 << 10
	defaultSparse    = 64 << 30

	maxXattrs     = 1024     // of one entry
	maxXattrName  = 255      // XATTR_NAME_MAX
	maxXattrValue = 64 << 10 // XATTR_SIZE_MAX
	maxID         = math.MaxUint32
	maxDevice     = math.MaxUint32
)

// withDefaults fills in the zero fields.
func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = defaultEntries
	}
	if l.PathLen <= 0 {
		l.PathLen = defaultPathLen
	}
	if l.Ratio <= 0 {
		l.Ratio = defaultRatio
	}
	if l.XattrSize <= 0 {
		l.XattrSize = defaultXattrSize
	}
	if l.Sparse <= 0 {
		l.Sparse = defaultSparse
	}
	return l
}

// scanner iterates over the members of an uncompressed layer and applies every
// rule there is about names, types and sizes. It is the only reader of tar in this
// package, so that what ReadTOC accepts is what Apply and Builder.Archive accept.
type scanner struct {
	m       *meter
	lim     Limits
	count   int64
	cur     Entry
	raw     header
	rawPAX  pax
	start   int64 // of the current member's first header
	remain  int64 // bytes of data not read yet
	padding int64
	done    bool

	// lenient takes an archive as Go's tar and docker's ADD do: it may end wherever a member does, within its padding too, and
	// what follows its end marker is not looked at.
	lenient bool
}

func newScanner(ctx context.Context, r io.Reader, h hash.Hash, lim Limits) *scanner {
	lim = lim.withDefaults()
	return &scanner{m: newMeter(ctx, r, h, lim.Size), lim: lim}
}

// next moves to the next member. The entry is valid until the following call. After the last one the stream is
// read to its end and io.EOF comes; the end marker must be there and nothing but zeros may follow it.
func (s *scanner) next() (*Entry, error) {
	for {
		if s.done {
			return nil, io.EOF
		}
		err := s.m.skip(s.remain)
		if err == nil {
			if err = s.m.skip(s.padding); s.ends(err) {
				s.done = true
				return nil, io.EOF
			}
		}
		if err != nil {
			return nil, s.fail(err)
		}
		s.remain, s.padding = 0, 0
		s.start = s.m.pos
		end, skip, err := s.member()
		switch {
		case err != nil:
			return nil, s.fail(err)
		case end:
			s.done = true
			if s.lenient {
				return nil, s.secondZeros()
			}
			if err := s.m.drainZeros(); err != nil {
				return nil, err
			}
			return nil, io.EOF
		case skip:
			continue
		}
		return &s.cur, nil
	}
}

// ends reports whether err is an end that a lenient reader takes for the archive's: of the stream itself, not of something
// compressed that was cut.
func (s *scanner) ends(err error) bool { return s.lenient && err != nil && s.m.err == io.EOF }

// secondZeros reads the second block of the end marker, or the end of the stream in its stead; then it is io.EOF.
func (s *scanner) secondZeros() error {
	switch b, err := s.m.next(blockSize); {
	case err != nil && s.m.err == io.EOF && len(b) == 0:
		return io.EOF
	case err != nil:
		return s.fail(err)
	case !allZero(b):
		return s.fail(fmt.Errorf("%w: a single block of zeros", ErrInvalid))
	}
	return io.EOF
}

// fail names the member in err. The name is the raw one: it may be what is wrong.
func (s *scanner) fail(err error) error {
	return &EntryError{Name: s.raw.name, Offset: s.start, Err: noEOF(err)}
}

// member reads one member's headers. end reports the end marker, skip a member that means nothing.
func (s *scanner) member() (end, skip bool, err error) {
	var longName, longLink string
	hasPAX, extended := false, false // extended: a header that belongs to the member was read
	for {
		b, err := s.m.next(blockSize)
		if err == io.EOF && !extended && s.lenient {
			return true, false, nil
		}
		if err != nil {
			return false, false, err // io.EOF too: the end marker is missing
		}
		if allZero(b) {
			if extended {
				return false, false, fmt.Errorf("%w: extended header without a member", ErrInvalid)
			}
			// The second block of zeros may be missing; anything else is data after the end.
			return true, false, nil
		}
		if err := parseBlock(b, &s.raw); err != nil {
			return false, false, err
		}
		switch s.raw.typeflag {
		case tar.TypeXHeader, tar.TypeXGlobalHeader:
			body, err := s.extended()
			if err != nil {
				return false, false, err
			}
			if s.raw.typeflag == tar.TypeXGlobalHeader {
				if extended {
					return false, false, fmt.Errorf("%w: global header between a member's headers", ErrInvalid)
				}
				var g pax
				if err := parsePAX(body, &g); err != nil {
					return false, false, err
				}
				if g.globalOverriding != "" {
					return false, false, fmt.Errorf("%w: global header sets %q", ErrInvalid, g.globalOverriding)
				}
				if err := s.counted(); err != nil {
					return false, false, err
				}
				continue
			}
			if err := parsePAX(body, &s.rawPAX); err != nil {
				return false, false, err
			}
			hasPAX, extended = true, true
			continue
		case tar.TypeGNULongName, tar.TypeGNULongLink:
			body, err := s.extended()
			if err != nil {
				return false, false, err
			}
			if s.raw.typeflag == tar.TypeGNULongName {
				longName = cString(body)
			} else {
				longLink = cString(body)
			}
			extended = true
			continue
		}
		isSparse := s.raw.typeflag == tar.TypeGNUSparse && s.raw.gnu
		if hasPAX {
			s.rawPAX.apply(&s.raw)
		}
		if longName != "" {
			s.raw.name = longName
		}
		if longLink != "" {
			s.raw.link = longLink
		}
		if err := s.sparse(b, isSparse, hasPAX); err != nil {
			return false, false, err
		}
		skip, err := s.rules()
		return false, skip, err
	}
}

// extended reads the body of an extended header; it is valid until the next read.
func (s *scanner) extended() ([]byte, error) {
	n := s.raw.size
	if n < 0 {
		return nil, fmt.Errorf("%w: size %d", ErrInvalid, n)
	}
	if n > maxExtended {
		return nil, fmt.Errorf("%w: extended header of %d bytes, at most %d", ErrLimit, n, maxExtended)
	}
	var body []byte
	if n <= meterSize {
		b, err := s.m.next(int(n))
		if err != nil {
			return nil, noEOF(err)
		}
		body = append(body, b...)
	} else {
		for rest := n; rest > 0; {
			b, err := s.m.chunk(rest)
			if err != nil {
				return nil, err
			}
			body = append(body, b...)
			rest -= int64(len(b))
		}
	}
	return body, s.m.skip(padding(n))
}

func padding(n int64) int64 { return -n & (blockSize - 1) }

// counted bounds the number of members.
func (s *scanner) counted() error {
	if s.count++; s.count > s.lim.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, s.lim.Entries)
	}
	return nil
}

// rules turns the raw header into an Entry, or says which rule it breaks.
func (s *scanner) rules() (skip bool, err error) {
	h := &s.raw
	if err := s.counted(); err != nil {
		return false, err
	}
	h.normalType()
	switch h.typeflag {
	case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
	default:
		return false, fmt.Errorf("%w %q", ErrType, h.typeflag)
	}
	if !hasData(h.typeflag) {
		h.logical, s.remain, s.padding = 0, 0, 0
	}
	name, err := cleanName(h.name, s.lim.PathLen)
	if err != nil {
		return false, err
	}
	kind, target, err := parseWhiteout(name)
	if err != nil {
		return false, err
	}
	s.cur = Entry{Name: name, Type: h.typeflag, Mode: h.mode & 0o7777, ModTime: time.Unix(h.sec, h.nsec)}
	e := &s.cur
	switch kind {
	case whIgnored:
		return true, nil
	case whDelete, whHideDir:
		s.cur = Entry{Name: target, Type: tar.TypeReg, Whiteout: kind == whDelete, Opaque: kind == whHideDir, ModTime: e.ModTime}
		return false, nil
	}
	if h.uid < 0 || h.uid > maxID || h.gid < 0 || h.gid > maxID {
		return false, fmt.Errorf("%w: owner %d:%d", ErrInvalid, h.uid, h.gid)
	}
	e.UID, e.GID = int(h.uid), int(h.gid)
	if name == "." && h.typeflag != tar.TypeDir {
		return false, fmt.Errorf("%w: it would replace the root directory", ErrUnsafe)
	}
	switch h.typeflag {
	case tar.TypeReg:
		e.Size, e.Offset, e.Sparse = h.logical, s.m.pos, h.sparse
	case tar.TypeSymlink:
		if h.link == "" || len(h.link) >= s.lim.PathLen {
			return false, fmt.Errorf("symlink to %d bytes: %w: %w", len(h.link), ErrLimit, syscall.ENAMETOOLONG)
		}
		e.Link = h.link
	case tar.TypeLink:
		if e.Link, err = cleanLink(h.link, s.lim.PathLen); err != nil {
			return false, fmt.Errorf("hard link: %w", err)
		}
		if e.Link == "." || e.Link == name {
			return false, fmt.Errorf("%w: hard link to %q", ErrInvalid, h.link)
		}
	case tar.TypeChar, tar.TypeBlock:
		if h.major < 0 || h.minor < 0 || h.major > maxDevice || h.minor > maxDevice {
			return false, fmt.Errorf("%w: device %d:%d", ErrInvalid, h.major, h.minor)
		}
		e.Major, e.Minor = h.major, h.minor
	}
	e.Xattrs = h.xattrs
	return false, checkXattrs(e, s.lim.XattrSize)
}

// checkXattrs bounds the attributes of one entry; limit is for names and values together.
func checkXattrs(e *Entry, limit int64) error {
	if len(e.Xattrs) > maxXattrs {
		return fmt.Errorf("%w: %d extended attributes, at most %d", ErrLimit, len(e.Xattrs), maxXattrs)
	}
	total := int64(0)
	for name, value := range e.Xattrs {
		if len(name) > maxXattrName || len(value) > maxXattrValue {
			return fmt.Errorf("%w: extended attribute %.40q of %d bytes", ErrLimit, name, len(value))
		}
		total += int64(len(name) + len(value))
	}
	if total > limit {
		return fmt.Errorf("%w: %d bytes of extended attributes, at most %d", ErrLimit, total, limit)
	}
	return nil
}

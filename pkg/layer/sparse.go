package layer

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Extent is a piece of a sparse file that holds data.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// maxExtents bounds the pieces of one sparse file.
const maxExtents = maxExtended / 24

// sparseMap collects extents and checks them.
type sparseMap struct{ list []Extent }

func (s *sparseMap) add(off, n int64) error {
	if len(s.list) >= maxExtents {
		return fmt.Errorf("%w: sparse file of more than %d pieces", ErrLimit, maxExtents)
	}
	s.list = append(s.list, Extent{off, n})
	return nil
}

// check refuses a map that is not ordered, overlaps, or disagrees with the sizes.
func (s *sparseMap) check(logical, physical int64) error {
	end, sum := int64(0), int64(0)
	for _, e := range s.list {
		if e.Offset < end || e.Length < 0 || e.Offset > logical-e.Length {
			return fmt.Errorf("%w: sparse map out of order", ErrInvalid)
		}
		end = e.Offset + e.Length
		sum += e.Length
	}
	if sum != physical {
		return fmt.Errorf("%w: sparse map of %d bytes for %d of data", ErrInvalid, sum, physical)
	}
	return nil
}

// oldGNUSparse reads the map of a type 'S' member: four pieces in the header b, more in blocks behind it.
func oldGNUSparse(m *meter, b []byte, h *header) (sparseMap, error) {
	var s sparseMap
	var p numbers
	h.logical = p.parse(b[483:495])
	pieces, extended := b[386:482], b[482]
	for total := 0; ; total += blockSize {
		for ; len(pieces) >= 24 && pieces[0] != 0; pieces = pieces[24:] {
			off, n := p.parse(pieces[:12]), p.parse(pieces[12:24])
			if p.bad {
				return s, fmt.Errorf("%w: sparse map with a number that is none", ErrInvalid)
			}
			if err := s.add(off, n); err != nil {
				return s, err
			}
		}
		if extended == 0 {
			break
		}
		if total > maxExtended {
			return s, fmt.Errorf("%w: sparse map of more than %d bytes", ErrLimit, maxExtended)
		}
		blk, err := m.next(blockSize)
		if err != nil {
			return s, noEOF(err)
		}
		pieces, extended = blk[:504], blk[504]
	}
	if p.bad {
		return s, fmt.Errorf("%w: sparse file without a size", ErrInvalid)
	}
	return s, nil
}

// paxSparse reads the map of GNU's formats 0.0, 0.1 and 1.0; ok is false when the member is not sparse.
// For 1.0 the map stands before the data and is taken from h.size.
func paxSparse(m *meter, p *pax, h *header) (s sparseMap, ok bool, err error) {
	v1 := p.sparseMajor == "1" && p.sparseMinor == "0"
	switch {
	case !p.hasSparse:
		return s, false, nil
	case v1, p.sparseMajor == "0" && (p.sparseMinor == "0" || p.sparseMinor == "1"):
	case p.sparseMajor != "" || p.sparseMinor != "":
		return s, false, fmt.Errorf("%w: sparse file of format %.10s.%.10s", ErrType, p.sparseMajor, p.sparseMinor)
	}
	if p.sparseName != "" {
		h.name = p.sparseName
	}
	size := p.sparseSize
	if p.sparseRealSize != "" {
		size = p.sparseRealSize
	}
	h.logical, err = strconv.ParseInt(size, 10, 64)
	if err != nil {
		return s, false, fmt.Errorf("%w: sparse file of size %.40q", ErrInvalid, size)
	}
	if v1 {
		s, err = paxSparse1(m, h)
		return s, true, err
	}
	pairs := p.sparsePairs
	if pairs == nil && p.sparseMap != "" {
		pairs = strings.Split(p.sparseMap, ",")
	}
	if n, err := strconv.Atoi(p.sparseBlocks); err != nil || n < 0 || 2*n != len(pairs) {
		return s, false, fmt.Errorf("%w: sparse map of %.20q pieces has %d numbers", ErrInvalid, p.sparseBlocks, len(pairs))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		off, err1 := strconv.ParseInt(pairs[i], 10, 64)
		n, err2 := strconv.ParseInt(pairs[i+1], 10, 64)
		if err1 != nil || err2 != nil {
			return s, false, fmt.Errorf("%w: sparse map with a number that is none", ErrInvalid)
		}
		if err := s.add(off, n); err != nil {
			return s, false, err
		}
	}
	return s, true, nil
}

func paxSparse1(m *meter, h *header) (s sparseMap, err error) {
	var text []byte
	used := int64(0)
	number := func() (int64, error) {
		for {
			if i := bytes.IndexByte(text, '\n'); i >= 0 {
				n, err := strconv.ParseInt(string(text[:i]), 10, 64)
				text = text[i+1:]
				if err != nil || n < 0 {
					return 0, fmt.Errorf("%w: sparse map with a number that is none", ErrInvalid)
				}
				return n, nil
			}
			if used >= maxExtended || used+blockSize > h.size {
				return 0, fmt.Errorf("%w: sparse map longer than its data", ErrInvalid)
			}
			blk, err := m.next(blockSize)
			if err != nil {
				return 0, noEOF(err)
			}
			used += blockSize
			text = append(text, blk...)
		}
	}
	n, err := number()
	if err != nil {
		return s, err
	}
	for range n {
		off, err := number()
		if err != nil {
			return s, err
		}
		length, err := number()
		if err != nil {
			return s, err
		}
		if err := s.add(off, length); err != nil {
			return s, err
		}
	}
	h.size -= used
	return s, nil
}

// noEOF makes the end of the stream within a member an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sparseReader reads a sparse file's logical bytes from its packed data.
type sparseReader struct {
	r       io.Reader
	extents []Extent
	size    int64
	pos     int64
}

func (s *sparseReader) Read(p []byte) (int, error) {
	if s.pos >= s.size {
		return 0, io.EOF
	}
	if int64(len(p)) > s.size-s.pos {
		p = p[:s.size-s.pos]
	}
	for len(s.extents) > 0 && s.pos >= s.extents[0].Offset+s.extents[0].Length {
		s.extents = s.extents[1:]
	}
	if len(s.extents) == 0 || s.pos < s.extents[0].Offset {
		if len(s.extents) > 0 {
			p = p[:min(int64(len(p)), s.extents[0].Offset-s.pos)]
		}
		clear(p)
		s.pos += int64(len(p))
		return len(p), nil
	}
	e := s.extents[0]
	p = p[:min(int64(len(p)), e.Offset+e.Length-s.pos)]
	n, err := s.r.Read(p)
	s.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, noEOF(err)
}

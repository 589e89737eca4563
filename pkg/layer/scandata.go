package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
)

// sparse reads the map of a sparse file, which may stand before its data.
func (s *scanner) sparse(b []byte, old, hasPAX bool) (err error) {
	h := &s.raw
	if h.size < 0 || h.size > math.MaxInt64-blockSize {
		return fmt.Errorf("%w: size %d", ErrInvalid, h.size)
	}
	var sm sparseMap
	isPAX := false
	total := h.size
	switch {
	case h.typeflag == tar.TypeGNUSparse && !old:
		return fmt.Errorf("%w: sparse file that is not GNU's", ErrType)
	case old:
		sm, err = oldGNUSparse(s.m, b, h)
	case hasPAX && hasData(h.typeflag):
		sm, isPAX, err = paxSparse(s.m, &s.rawPAX, h)
	}
	if err != nil {
		return err
	}
	if !old && !isPAX {
		h.logical = h.size
		s.remain, s.padding = h.size, padding(total)
		return nil
	}
	if h.logical < 0 {
		return fmt.Errorf("%w: sparse file of size %d", ErrInvalid, h.logical)
	}
	if h.logical > s.lim.Sparse {
		return fmt.Errorf("%w: sparse file of %d bytes, at most %d", ErrLimit, h.logical, s.lim.Sparse)
	}
	if err := sm.check(h.logical, h.size); err != nil {
		return err
	}
	h.sparse = sm.list
	if h.sparse == nil {
		h.sparse = []Extent{}
	}
	s.remain, s.padding = h.size, padding(total)
	return nil
}

// packed reads the current member's data as it is in the archive (a sparse file's pieces only).
func (s *scanner) packed() io.Reader { return (*packedReader)(s) }

type packedReader scanner

func (p *packedReader) Read(b []byte) (int, error) {
	if p.remain == 0 {
		return 0, io.EOF
	}
	c, err := p.m.chunk(min(int64(len(b)), p.remain))
	if err != nil {
		return 0, err
	}
	p.remain -= int64(len(c))
	return copy(b, c), nil
}

// WriteTo hands the buffer's pieces to w without copying them.
func (p *packedReader) WriteTo(w io.Writer) (n int64, err error) {
	for p.remain > 0 {
		c, err := p.m.chunk(p.remain)
		if err != nil {
			return n, err
		}
		p.remain -= int64(len(c))
		k, err := w.Write(c)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// data reads the current member's content: holes are zeros.
func (s *scanner) data() io.Reader {
	if s.cur.Sparse == nil {
		return s.packed()
	}
	return &sparseReader{r: s.packed(), extents: s.cur.Sparse, size: s.cur.Size}
}

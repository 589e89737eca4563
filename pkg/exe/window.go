package exe

import (
	"bytes"
	"encoding/binary"
)

// piece is a run of a file's bytes that was kept.
type piece struct {
	off  int64
	data []byte
}

// window is what was kept of a file. Asking for anything else says no.
type window struct {
	size   int64 // of the file
	pieces []piece
	missed bool // something was asked for that the file has but that was not kept
}

// bytes returns n bytes at off, when all of them were kept.
func (w *window) bytes(off, n int64) ([]byte, bool) {
	if off < 0 || n < 0 || off > w.size || n > w.size-off {
		return nil, false // the file does not have them
	}
	for _, p := range w.pieces {
		if off >= p.off && off-p.off <= int64(len(p.data)) && n <= int64(len(p.data))-(off-p.off) {
			return p.data[off-p.off:][:n], true
		}
	}
	w.missed = true
	return nil, false
}

// upTo returns at most n bytes at off, as many as were kept in one piece.
func (w *window) upTo(off, n int64) []byte {
	if off < 0 || n < 0 || off >= w.size {
		return nil
	}
	n = min(n, w.size-off)
	for _, p := range w.pieces {
		if off >= p.off && off-p.off < int64(len(p.data)) {
			b := p.data[off-p.off:]
			return b[:min(n, int64(len(b)))]
		}
	}
	w.missed = true
	return nil
}

// cString returns the string at off, of at most limit bytes, that a NUL ends.
func (w *window) cString(off, limit int64) (string, bool) {
	b := w.upTo(off, limit)
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", false
	}
	return string(b[:i]), true
}

// fields reads numbers one after the other; beyond the end they are zero and bad is set.
type fields struct {
	b     []byte
	order binary.ByteOrder
	bad   bool
}

func (f *fields) take(n int) []byte {
	if len(f.b) < n {
		f.b, f.bad = nil, true
		return make([]byte, n)
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) u8() uint8   { return f.take(1)[0] }
func (f *fields) u16() uint16 { return f.order.Uint16(f.take(2)) }
func (f *fields) u32() uint32 { return f.order.Uint32(f.take(4)) }
func (f *fields) u64() uint64 { return f.order.Uint64(f.take(8)) }

// word is an address or offset: four bytes or eight.
func (f *fields) word(bits int) uint64 {
	if bits == 64 {
		return f.u64()
	}
	return uint64(f.u32())
}

// uleb is a number of variable length.
func (f *fields) uleb() uint64 {
	var v uint64
	for shift := 0; shift < 63; shift += 7 {
		c := f.u8()
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return v
		}
	}
	f.bad = true
	return 0
}

// text is a string that a NUL ends.
func (f *fields) text() string {
	i := bytes.IndexByte(f.b, 0)
	if i < 0 {
		f.b, f.bad = nil, true
		return ""
	}
	s := string(f.b[:i])
	f.b = f.b[i+1:]
	return s
}

// signed makes an offset of a number in a file; a number that is none is -1.
func signed(v uint64) int64 {
	if v > 1<<62 {
		return -1
	}
	return int64(v)
}

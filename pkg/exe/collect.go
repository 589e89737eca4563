package exe

import (
	"errors"
	"slices"
)

const (
	// MaxKept bounds what is kept of one file, in bytes.
	MaxKept = 8 << 20

	headSize   = 64 << 10 // the file's beginning: headers and program headers
	scriptSize = 256      // what Linux looks at for #! (BINPRM_BUF_SIZE)
	maxSpans   = 64
)

// ErrEnough says that the rest of a file is of no interest.
var ErrEnough = errors.New("nothing more of the file is needed")

// span is a part of a file that is wanted.
type span struct{ off, end int64 }

// Collector takes a file's bytes in order and keeps what File needs. It is used again for the next file, so that
// its memory is that of the largest one.
type Collector struct {
	size    int64
	pos     int64
	format  Format
	head    []byte
	arena   []byte // what is kept, but for the head
	spans   []span // wanted, in order, beyond the head
	pieces  []piece
	planned bool
	done    bool
}

// Reset starts a file of size bytes.
func (c *Collector) Reset(size int64) {
	*c = Collector{size: size, head: c.head[:0], arena: c.arena[:0], spans: c.spans[:0], pieces: c.pieces[:0]}
}

// Write takes the next bytes. ErrEnough says that no more are needed; nothing is wrong then.
func (c *Collector) Write(p []byte) (int, error) {
	n := len(p)
	for !c.done && len(p) > 0 {
		if c.planned {
			c.keep(p)
			break
		}
		want := c.wantHead()
		k := min(want-len(c.head), len(p))
		c.head = append(c.head, p[:k]...)
		c.pos += int64(k)
		p = p[k:]
		if len(c.head) == want {
			c.grown()
		}
	}
	if c.done {
		return n, ErrEnough
	}
	return n, nil
}

// Skip is Write of n zeros, without them.
func (c *Collector) Skip(n int64) {
	var zeros [4096]byte
	for !c.planned && !c.done && n > 0 {
		k := min(n, int64(len(zeros)))
		_, _ = c.Write(zeros[:k])
		n -= k
	}
	for n > 0 && !c.done && len(c.spans) > 0 {
		if s := c.spans[0]; s.off > c.pos {
			k := min(n, s.off-c.pos)
			c.pos += k
			n -= k
			continue
		}
		k := min(n, int64(len(zeros)))
		_, _ = c.Write(zeros[:k])
		n -= k
	}
}

// wantHead is how long the head is to be, as far as it is known.
func (c *Collector) wantHead() int {
	want := int64(4)
	switch c.format {
	case "":
	case Script:
		want = scriptSize
	case Wasm, XCOFF, Plan9:
		want = 64
	default:
		want = headSize
	}
	return int(min(want, c.size))
}

// grown looks at a head that is as long as it was wanted.
func (c *Collector) grown() {
	if c.format == "" {
		if c.format = sniff(c.head); c.format == "" {
			c.done = true
			return
		}
		if c.wantHead() > len(c.head) {
			return
		}
	}
	c.plan()
}

// plan decides what is wanted beyond the head.
func (c *Collector) plan() {
	c.planned = true
	w := &window{size: c.size, pieces: []piece{{0, c.head}}}
	switch c.format {
	case ELF:
		c.spans = elfSpans(w, c.spans)
	case PE:
		c.spans = peSpans(w, c.spans)
	case MachO:
		c.spans = machoSpans(w, c.spans)
	}
	c.spans = mergeSpans(c.spans, int64(len(c.head)), c.size)
	// The arena must not move while pieces point into it.
	total := int64(0)
	for _, s := range c.spans {
		total += s.end - s.off
	}
	if c.done = len(c.spans) == 0; c.done {
		return
	}
	total += int64(len(c.head))
	if int64(cap(c.arena)) < total {
		c.arena = make([]byte, 0, max(total, 1<<20))
	}
	c.arena = append(c.arena[:0], c.head...)
	c.pieces = append(c.pieces, piece{0, c.arena})
}

// mergeSpans sorts spans, joins those that touch, and cuts them to what lies beyond the head and in the file, and to MaxKept.
func mergeSpans(spans []span, head, size int64) []span {
	slices.SortFunc(spans, func(a, b span) int {
		switch {
		case a.off < b.off:
			return -1
		case a.off > b.off:
			return 1
		}
		return 0
	})
	out := spans[:0]
	left := int64(MaxKept - headSize)
	for _, s := range spans {
		s.off, s.end = max(s.off, head), min(s.end, size)
		if n := len(out); n > 0 && s.off <= out[n-1].end {
			grow := min(s.end-out[n-1].end, left)
			if grow > 0 {
				out[n-1].end += grow
				left -= grow
			}
			continue
		}
		s.end = min(s.end, s.off+left)
		if s.end <= s.off {
			continue
		}
		left -= s.end - s.off
		out = append(out, s)
	}
	return out
}

// keep takes what is wanted of p, which begins at pos.
func (c *Collector) keep(p []byte) {
	end := c.pos + int64(len(p))
	for len(c.spans) > 0 {
		s := &c.spans[0]
		if s.off >= end {
			break
		}
		from, to := max(s.off, c.pos), min(s.end, end)
		at := len(c.arena)
		c.arena = append(c.arena, p[from-c.pos:to-c.pos]...)
		if n := len(c.pieces); n > 0 && c.pieces[n-1].off+int64(len(c.pieces[n-1].data)) == from {
			start := at - len(c.pieces[n-1].data)
			c.pieces[n-1].data = c.arena[start:]
		} else {
			c.pieces = append(c.pieces, piece{from, c.arena[at:]})
		}
		if s.off = to; s.off < s.end {
			break
		}
		c.spans = c.spans[1:]
	}
	c.pos = end
	c.done = len(c.spans) == 0
}

// File reads what was kept. It is nil for a file of no format that is known.
func (c *Collector) File() *File {
	if c.format == "" && len(c.head) > 0 {
		c.format = sniff(c.head)
	}
	w := &window{size: c.size, pieces: c.pieces}
	if len(w.pieces) == 0 {
		w.pieces = append(w.pieces, piece{0, c.head})
	}
	return parse(c.format, w)
}

// Parse reads a whole file.
func Parse(b []byte) *File {
	var c Collector
	c.Reset(int64(len(b)))
	_, _ = c.Write(b)
	return c.File()
}

func parse(format Format, w *window) *File {
	var f *File
	switch format {
	case ELF:
		f = parseELF(w)
	case PE:
		f = parsePE(w)
	case MachO:
		f = parseMachO(w)
	case Script:
		f = parseScript(w)
	case Wasm, XCOFF, Plan9:
		f = parseOther(format, w)
	}
	if f != nil {
		f.Partial = f.Partial || w.missed
	}
	return f
}

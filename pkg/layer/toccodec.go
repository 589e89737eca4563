package layer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// tocVersion is the first byte of a table's binary form. Another version is read as if there were no table.
const tocVersion = 1

// MarshalBinary encodes the table compactly and exactly: names and attributes are bytes, times
// have any year, neither of which JSON keeps. Equal tables give equal bytes.
func (t *TOC) MarshalBinary() ([]byte, error) {
	if t.encoded != nil {
		return t.encoded.table(t.DiffID, t.Size), nil
	}
	e := tocEncoder{b: make([]byte, 0, 48*len(t.Entries))}
	for i := range t.Entries {
		e.add(&t.Entries[i])
	}
	return e.table(t.DiffID, t.Size), nil
}

// tocEncoder encodes entries as they come, to hold a fifth of what they take.
type tocEncoder struct {
	b    []byte
	n    int
	last string
}

// table is the binary form of the table with the entries so far.
func (t *tocEncoder) table(diffID digest.Digest, size int64) []byte {
	b := make([]byte, 0, 128+len(t.b))
	b = append(b, tocVersion)
	b = appendString(b, string(diffID))
	b = binary.AppendVarint(b, size)
	b = binary.AppendUvarint(b, uint64(t.n))
	return append(b, t.b...)
}

func (t *tocEncoder) add(e *Entry) {
	b := t.b
	shared := commonPrefix(t.last, e.Name)
	t.last = e.Name
	t.n++
	b = binary.AppendUvarint(b, uint64(shared))
	b = appendString(b, e.Name[shared:])
	flags := byte(0)
	for bit, set := range [...]bool{e.Whiteout, e.Opaque, e.Link != "", len(e.Xattrs) > 0, e.Sparse != nil, e.Major != 0 || e.Minor != 0} {
		if set {
			flags |= 1 << bit
		}
	}
	b = append(b, e.Type, flags)
	for _, n := range [...]int64{e.Mode, int64(e.UID), int64(e.GID), e.Size, e.Offset, e.ModTime.Unix(), int64(e.ModTime.Nanosecond())} {
		b = binary.AppendVarint(b, n)
	}
	if e.Link != "" {
		b = appendString(b, e.Link)
	}
	if len(e.Xattrs) > 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
		for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
			b = appendString(appendString(b, k), e.Xattrs[k])
		}
	}
	if e.Sparse != nil {
		b = binary.AppendUvarint(b, uint64(len(e.Sparse)))
		for _, x := range e.Sparse {
			b = binary.AppendVarint(binary.AppendVarint(b, x.Offset), x.Length)
		}
	}
	if e.Major != 0 || e.Minor != 0 {
		b = binary.AppendVarint(binary.AppendVarint(b, e.Major), e.Minor)
	}
	t.b = b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (t *TOC) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != tocVersion {
		return fmt.Errorf("%w: table of contents of another version", ErrInvalid)
	}
	d := decoder{b: b[1:]}
	out := TOC{DiffID: digest.Digest(d.str()), Size: d.varint()}
	n := d.count(11) // the least that an entry takes
	out.Entries = make([]Entry, n)
	last := ""
	for i := range out.Entries {
		e := &out.Entries[i]
		shared := d.uvarint()
		if shared > uint64(len(last)) {
			d.bad = true
		}
		if d.bad {
			break
		}
		e.Name = last[:shared] + d.str()
		last = e.Name
		e.Type = d.byte()
		flags := d.byte()
		e.Whiteout, e.Opaque = flags&1 != 0, flags&2 != 0
		e.Mode, e.UID, e.GID = d.varint(), int(d.varint()), int(d.varint())
		e.Size, e.Offset = d.varint(), d.varint()
		sec, nsec := d.varint(), d.varint()
		e.ModTime = time.Unix(sec, nsec)
		if flags&4 != 0 {
			e.Link = d.str()
		}
		if flags&8 != 0 {
			n := d.count(2)
			e.Xattrs = make(map[string]string, n)
			for range n {
				k := d.str()
				e.Xattrs[k] = d.str()
			}
		}
		if flags&16 != 0 {
			e.Sparse = make([]Extent, d.count(2))
			for j := range e.Sparse {
				e.Sparse[j] = Extent{d.varint(), d.varint()}
			}
		}
		if flags&32 != 0 {
			e.Major, e.Minor = d.varint(), d.varint()
		}
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: damaged table of contents", ErrInvalid)
	}
	*t = out
	return nil
}

// decoder reads fields; after the first one that is not there all are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) varint() int64 {
	x, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return x
}

// count reads a number of things that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) str() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// tocJSON is a table inside JSON.
type tocJSON struct {
	DiffID digest.Digest `json:"diffID"`
	Table  []byte        `json:"table"`
}

// MarshalJSON wraps the binary form, because JSON changes names that are no UTF-8.
func (t *TOC) MarshalJSON() ([]byte, error) {
	b, err := t.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return json.Marshal(tocJSON{t.DiffID, b})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *TOC) UnmarshalJSON(b []byte) error {
	var j tocJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	return t.UnmarshalBinary(j.Table)
}

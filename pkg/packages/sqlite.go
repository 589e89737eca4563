package packages

import (
	"encoding/binary"
)

// sqlite reads the table Packages of rpmdb.sqlite: a number and a header in each row. Only what that needs of SQLite's
// file format (sqlite.org/fileformat2.html) is read: table b-trees, records and overflow pages.
func (p *rpmReader) sqlite() error {
	head, err := p.bytes(0, 100)
	if err != nil {
		return err
	}
	if string(head[:16]) != "SQLite format 3\x00" {
		return invalid("no SQLite database")
	}
	s := sqlite{p: p, page: int64(binary.BigEndian.Uint16(head[16:])), seen: map[int64]bool{}}
	if s.page == 1 {
		s.page = 65536
	}
	s.usable = s.page - int64(head[20])
	if s.page < 512 || s.page&(s.page-1) != 0 || s.usable < 480 {
		return invalid("SQLite pages of %d bytes", s.page)
	}
	root := int64(0)
	err = s.table(1, 0, func(record []byte) error {
		columns, err := sqliteColumns(record, 5)
		if err != nil {
			return err
		}
		if len(columns) >= 4 && string(columns[0]) == "table" && string(columns[1]) == "Packages" {
			for _, c := range columns[3] {
				root = root<<8 | int64(c)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return invalid("SQLite database without a table Packages")
	}
	return s.table(root, 0, func(record []byte) error {
		columns, err := sqliteColumns(record, 2)
		if err != nil {
			return err
		}
		if len(columns) < 2 {
			return invalid("a row of %d columns", len(columns))
		}
		return p.add(columns[1])
	})
}

type sqlite struct {
	p            *rpmReader
	page, usable int64
	seen         map[int64]bool // pages that were read: each belongs to one place
}

func (s *sqlite) read(number int64) ([]byte, error) {
	if number < 1 || s.seen[number] {
		return nil, invalid("SQLite page %d is used twice", number)
	}
	s.seen[number] = true
	return s.p.bytes((number-1)*s.page, s.page)
}

// table calls row with the record of every row of a table b-tree.
func (s *sqlite) table(number int64, depth int, row func([]byte) error) error {
	if depth > 32 {
		return invalid("SQLite tree deeper than 32 pages")
	}
	b, err := s.read(number)
	if err != nil {
		return err
	}
	head := int64(0)
	if number == 1 {
		head = 100
		defer delete(s.seen, 1)
	}
	const interior, leaf = 5, 13
	kind, cells := b[head], int64(binary.BigEndian.Uint16(b[head+3:]))
	pointers := head + 8
	if kind == interior {
		pointers = head + 12
	}
	if kind != interior && kind != leaf || pointers+2*cells > int64(len(b)) {
		return invalid("SQLite page %d is of no table", number)
	}
	for i := range cells {
		at := int64(binary.BigEndian.Uint16(b[pointers+2*i:]))
		if at+4 > int64(len(b)) {
			return invalid("SQLite cell behind its page")
		}
		if kind == interior {
			err = s.table(int64(binary.BigEndian.Uint32(b[at:])), depth+1, row)
		} else {
			err = s.cell(b[at:], row)
		}
		if err != nil {
			return err
		}
	}
	if kind == interior {
		return s.table(int64(binary.BigEndian.Uint32(b[head+8:])), depth+1, row)
	}
	return nil
}

// cell reads the record of a leaf's cell, and what of it is on overflow pages.
func (s *sqlite) cell(b []byte, row func([]byte) error) error {
	size, n := sqliteVarint(b)
	_, m := sqliteVarint(b[n:])
	if n == 0 || m == 0 || size < 0 || size > maxHeader {
		return invalid("SQLite row of %d bytes", size)
	}
	b = b[n+m:]
	local := size
	if most := s.usable - 35; size > most {
		least := (s.usable-12)*32/255 - 23
		if local = least + (size-least)%(s.usable-4); local > most {
			local = least
		}
	}
	if local > int64(len(b)) || size > local && local+4 > int64(len(b)) {
		return invalid("SQLite cell longer than its page")
	}
	record := append([]byte(nil), b[:local]...)
	if size == local {
		return row(record)
	}
	for next := int64(binary.BigEndian.Uint32(b[local:])); int64(len(record)) < size; {
		page, err := s.read(next)
		if err != nil {
			return err
		}
		next = int64(binary.BigEndian.Uint32(page))
		record = append(record, page[4:4+min(s.usable-4, size-int64(len(record)))]...)
	}
	return row(record)
}

// sqliteColumns takes the first columns of a record, as bytes.
func sqliteColumns(b []byte, most int) ([][]byte, error) {
	head, n := sqliteVarint(b)
	if n == 0 || head < int64(n) || head > int64(len(b)) {
		return nil, invalid("SQLite record with a header of %d bytes", head)
	}
	types, body := b[n:head], b[head:]
	var out [][]byte
	for len(types) > 0 && len(out) < most {
		kind, n := sqliteVarint(types)
		if n == 0 || kind < 0 {
			return nil, invalid("SQLite record with a damaged header")
		}
		types = types[n:]
		size := int64(0)
		switch {
		case kind >= 12:
			size = (kind - 12) / 2
		case kind <= 4:
			size = kind
		case kind == 5:
			size = 6
		case kind <= 7:
			size = 8
		}
		if size > int64(len(body)) {
			return nil, invalid("SQLite column of %d bytes in a record of %d", size, len(b))
		}
		out = append(out, body[:size])
		body = body[size:]
	}
	return out, nil
}

// sqliteVarint is a big-endian number of seven bits a byte; the ninth byte has eight. n is 0 when it is cut off.
func sqliteVarint(b []byte) (v int64, n int) {
	for i := range min(9, len(b)) {
		if i == 8 {
			return v<<8 | int64(b[i]), 9
		}
		v = v<<7 | int64(b[i]&0x7f)
		if b[i]&0x80 == 0 {
			return v, i + 1
		}
	}
	return 0, 0
}

package packages

import "encoding/binary"

// ndb reads Packages.db, rpm's own format (lib/backend/ndb/rpmpkg.c): pages of slots that say where each header is, in blocks of 16 bytes.
func (p *rpmReader) ndb() error {
	const headSize, page, block = 32, 4096, 16
	le := binary.LittleEndian
	head, err := p.bytes(0, headSize)
	if err != nil {
		return err
	}
	if string(head[:4]) != "RpmP" {
		return invalid("no database of rpm")
	}
	slots, err := p.bytes(headSize, int64(le.Uint32(head[12:]))*page-headSize)
	if err != nil {
		return err
	}
	for ; len(slots) >= 16; slots = slots[16:] {
		if string(slots[:4]) != "Slot" {
			return invalid("a slot that is none")
		}
		index, at := le.Uint32(slots[4:]), int64(le.Uint32(slots[8:]))*block
		if index == 0 || at == 0 {
			continue
		}
		blob, err := p.bytes(at, 16)
		if err != nil {
			return err
		}
		n := int64(le.Uint32(blob[12:]))
		if string(blob[:4]) != "BlbS" || le.Uint32(blob[4:]) != index || n > maxHeader {
			return invalid("package %d is not where its slot says", index)
		}
		b, err := p.bytes(at+16, n)
		if err != nil {
			return err
		}
		if err := p.add(b); err != nil {
			return err
		}
	}
	return nil
}

// bdb reads Packages of old systems: a hash of Berkeley DB, of whose pages each is looked at, in any order.
func (p *rpmReader) bdb() error {
	head, err := p.bytes(0, 72)
	if err != nil {
		return err
	}
	var order binary.ByteOrder = binary.LittleEndian
	const magic = 0x061561
	if order.Uint32(head[12:]) != magic {
		if order = binary.BigEndian; order.Uint32(head[12:]) != magic {
			return invalid("no hash of Berkeley DB")
		}
	}
	b := bdb{p: p, order: order, page: int64(order.Uint32(head[20:]))}
	if b.page < 512 || b.page > 65536 || b.page&(b.page-1) != 0 {
		return invalid("pages of %d bytes", b.page)
	}
	last := min(int64(order.Uint32(head[32:])), p.size/b.page-1)
	for n := int64(1); n <= last; n++ {
		if err := b.hashPage(n); err != nil {
			return err
		}
	}
	return nil
}

type bdb struct {
	p     *rpmReader
	order binary.ByteOrder
	page  int64
	read  int64 // pages of long values: each is read once
}

const bdbHead = 26

// hashPage reads the values of a page of a hash: every second item; long ones stand on pages of their own.
func (b *bdb) hashPage(n int64) error {
	page, err := b.p.bytes(n*b.page, b.page)
	if err != nil {
		return err
	}
	const unsorted, sorted, offPage = 2, 13, 3
	if page[25] != unsorted && page[25] != sorted {
		return nil
	}
	items := int64(b.order.Uint16(page[20:]))
	if bdbHead+2*items > b.page {
		return invalid("page %d claims %d items", n, items)
	}
	for i := int64(1); i < items; i += 2 {
		at := int64(b.order.Uint16(page[bdbHead+2*i:]))
		if at+12 > b.page || page[at] != offPage { // headers of packages never fit into a page
			continue
		}
		size := int64(b.order.Uint32(page[at+8:]))
		if size > maxHeader {
			return invalid("a header of %d bytes", size)
		}
		blob, err := b.long(int64(b.order.Uint32(page[at+4:])), size)
		if err != nil {
			return err
		}
		if err := b.p.add(blob); err != nil {
			return err
		}
	}
	return nil
}

// long reads a value of size bytes from a chain of overflow pages.
func (b *bdb) long(n, size int64) ([]byte, error) {
	const overflow = 7
	var out []byte
	for int64(len(out)) < size {
		if b.read++; b.read > b.p.size/b.page {
			return nil, invalid("chains of pages longer than the file")
		}
		page, err := b.p.bytes(n*b.page, b.page)
		if err != nil {
			return nil, err
		}
		length := int64(b.order.Uint16(page[22:]))
		if page[25] != overflow || length == 0 || bdbHead+length > b.page {
			return nil, invalid("page %d is no part of a header", n)
		}
		out = append(out, page[bdbHead:bdbHead+length]...)
		n = int64(b.order.Uint32(page[16:]))
	}
	return out[:size], nil
}

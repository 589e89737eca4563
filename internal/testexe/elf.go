// Package testexe makes small executable files for tests: ELF files of any machine with what a loader reads, and
// nothing to execute. It is for tests only.
package testexe

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// ELF is an ELF file to be. The zero value of a field leaves it out.
type ELF struct {
	Arch    string // Go's name: what Machine, Bits, Big and Flags are, unless they are set
	Machine uint16
	Bits    int
	Big     bool
	Flags   uint32
	Type    uint16 // ET_EXEC when 0; 1 is an object, 3 a library
	OSABI   uint8

	Interp  string
	Needed  []string
	Soname  string
	RPath   string
	RunPath string
	ARMArch int    // Tag_CPU_arch: 10 is v7, 6 is v6, 14 is v8
	ISA     string // of RISC-V
	X86     uint32 // bits of GNU_PROPERTY_X86_ISA_1_NEEDED
	Note    string // "NetBSD", "Android": a note of type 1
	Pad     int    // zeros between the dynamic section and the attributes, as a large program has them
}

// machines are ELF's numbers for Go's names.
var machines = map[string]ELF{
	"386": {Machine: 3, Bits: 32}, "amd64": {Machine: 62, Bits: 64}, "amd64p32": {Machine: 62, Bits: 32},
	"arm": {Machine: 40, Bits: 32, Flags: 0x05000400}, "armbe": {Machine: 40, Bits: 32, Big: true, Flags: 0x05000000},
	"arm64": {Machine: 183, Bits: 64}, "arm64be": {Machine: 183, Bits: 64, Big: true},
	"loong64": {Machine: 258, Bits: 64, Flags: 0x43}, "mips": {Machine: 8, Bits: 32, Big: true, Flags: 0x70001007},
	"mipsle": {Machine: 8, Bits: 32, Flags: 0x70001007}, "mips64": {Machine: 8, Bits: 64, Big: true, Flags: 0x80000007},
	"mips64le": {Machine: 8, Bits: 64, Flags: 0x80000007}, "mips64p32": {Machine: 8, Bits: 32, Big: true, Flags: 0x80000027},
	"mips64p32le": {Machine: 8, Bits: 32, Flags: 0x80000027}, "ppc": {Machine: 20, Bits: 32, Big: true},
	"ppc64": {Machine: 21, Bits: 64, Big: true, Flags: 1}, "ppc64le": {Machine: 21, Bits: 64, Flags: 2},
	"riscv": {Machine: 243, Bits: 32, Flags: 5}, "riscv64": {Machine: 243, Bits: 64, Flags: 5},
	"s390": {Machine: 22, Bits: 32, Big: true}, "s390x": {Machine: 22, Bits: 64, Big: true},
	"sparc": {Machine: 2, Bits: 32, Big: true}, "sparc64": {Machine: 43, Bits: 64, Big: true},
}

// Arches lists the names that Arch may have.
func Arches() []string {
	out := make([]string, 0, len(machines))
	for name := range machines {
		out = append(out, name)
	}
	return out
}

// Exec is a static program for a machine.
func Exec(arch string) string { return string(ELF{Arch: arch}.Bytes()) }

const base = 0x10000 // address of the file's first byte

type writer struct {
	bytes.Buffer
	order binary.ByteOrder
	bits  int
}

func (w *writer) num(size int, v uint64) {
	var b [8]byte
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		w.order.PutUint16(b[:], uint16(v))
	case 4:
		w.order.PutUint32(b[:], uint32(v))
	default:
		w.order.PutUint64(b[:], v)
	}
	w.Write(b[:size])
}

func (w *writer) half(v uint64) { w.num(2, v) }
func (w *writer) word(v uint64) { w.num(4, v) }
func (w *writer) addr(v uint64) { w.num(w.bits/8, v) }
func (w *writer) pad(n int) {
	for w.Len()%n != 0 {
		w.WriteByte(0)
	}
}

type part struct {
	kind  uint32
	flags uint32
	data  []byte
	off   int
}

// Bytes writes the file: header, program headers, their contents, attributes, section headers.
func (e ELF) Bytes() []byte {
	if m, ok := machines[e.Arch]; ok {
		if e.Machine == 0 {
			e.Machine, e.Bits, e.Big = m.Machine, m.Bits, m.Big
		}
		if e.Flags == 0 {
			e.Flags = m.Flags
		}
	}
	if e.Type == 0 {
		e.Type = 2
	}
	w := &writer{order: binary.LittleEndian, bits: e.Bits}
	if e.Big {
		w.order = binary.BigEndian
	}
	head, phsize, shsize := 52, 32, 40
	if e.Bits == 64 {
		head, phsize, shsize = 64, 56, 64
	}
	var parts []*part
	if e.Interp != "" {
		parts = append(parts, &part{kind: 3, data: append([]byte(e.Interp), 0)})
	}
	if n := e.notes(w.order); n != nil {
		parts = append(parts, &part{kind: 4, data: n})
	}
	strtab, dyn := e.dynamic()
	var dynamic *part
	if dyn != nil {
		parts = append(parts, &part{data: strtab})
		dynamic = &part{kind: 2, data: make([]byte, (len(dyn)+1)*e.Bits/4)}
		parts = append(parts, dynamic)
	}
	phnum := 1
	for _, p := range parts {
		if p.kind != 0 {
			phnum++
		}
	}
	at := head + phnum*phsize
	for _, p := range parts {
		at = (at + 7) &^ 7
		p.off = at
		at += len(p.data)
	}
	if dynamic != nil {
		d := &writer{order: w.order, bits: e.Bits}
		for _, x := range dyn {
			v := x[1]
			if x[0] == 5 { // DT_STRTAB
				for _, p := range parts {
					if p.kind == 0 {
						v = uint64(base + p.off)
					}
				}
			}
			d.addr(x[0])
			d.addr(v)
		}
		d.addr(0)
		d.addr(0)
		dynamic.data = d.Bytes()
	}
	loadEnd := at + e.Pad
	attributes := e.attributes(w.order)
	shoff, shnum := 0, 0
	if attributes != nil {
		shoff, shnum = (loadEnd+len(attributes)+7)&^7, 2
	}

	class, data := byte(1), byte(1)
	if e.Bits == 64 {
		class = 2
	}
	if e.Big {
		data = 2
	}
	w.Write([]byte{0x7f, 'E', 'L', 'F', class, data, 1, e.OSABI, 0, 0, 0, 0, 0, 0, 0, 0})
	w.half(uint64(e.Type))
	w.half(uint64(e.Machine))
	w.word(1)
	w.addr(base)
	w.addr(uint64(head))
	w.addr(uint64(shoff))
	w.word(uint64(e.Flags))
	w.half(uint64(head))
	w.half(uint64(phsize))
	w.half(uint64(phnum))
	w.half(uint64(shsize))
	w.half(uint64(shnum))
	w.half(0)
	e.phdr(w, &part{kind: 1, flags: 5}, loadEnd)
	for _, p := range parts {
		if p.kind != 0 {
			e.phdr(w, p, len(p.data))
		}
	}
	for _, p := range parts {
		w.pad(8)
		w.Write(p.data)
	}
	w.Write(make([]byte, e.Pad))
	if attributes != nil {
		at := w.Len()
		w.Write(attributes)
		w.pad(8)
		w.Write(make([]byte, shsize))
		w.word(0)
		w.word(0x70000003)
		w.addr(0)
		w.addr(0)
		w.addr(uint64(at))
		w.addr(uint64(len(attributes)))
		w.Write(make([]byte, shsize-8-4*e.Bits/8))
	}
	return w.Bytes()
}

func (e ELF) phdr(w *writer, p *part, size int) {
	w.word(uint64(p.kind))
	if e.Bits == 64 {
		w.word(uint64(p.flags))
	}
	w.addr(uint64(p.off))
	w.addr(uint64(base + p.off))
	w.addr(uint64(base + p.off))
	w.addr(uint64(size))
	w.addr(uint64(size))
	if e.Bits == 32 {
		w.word(uint64(p.flags))
	}
	align := uint64(4)
	if p.kind == 4 && e.X86 != 0 {
		align = 8
	}
	w.addr(align)
}

// dynamic is the string table and the entries of the dynamic section; nil when there are none.
func (e ELF) dynamic() (strtab []byte, entries [][2]uint64) {
	var s strings.Builder
	s.WriteByte(0)
	add := func(tag uint64, text string) {
		if text == "" {
			return
		}
		entries = append(entries, [2]uint64{tag, uint64(s.Len())})
		s.WriteString(text + "\x00")
	}
	for _, n := range e.Needed {
		add(1, n)
	}
	add(14, e.Soname)
	add(15, e.RPath)
	add(29, e.RunPath)
	if entries == nil && e.Type != 3 && e.Interp == "" {
		return nil, nil
	}
	entries = append(entries, [2]uint64{5, 0}, [2]uint64{10, uint64(s.Len())})
	return []byte(s.String()), entries
}

func (e ELF) notes(order binary.ByteOrder) []byte {
	w := &writer{order: order}
	switch {
	case e.X86 != 0:
		w.word(4)
		w.word(16)
		w.word(5)
		w.WriteString("GNU\x00")
		w.word(0xc0008002)
		w.word(4)
		w.word(uint64(e.X86))
		w.word(0)
	case e.Note != "":
		w.word(uint64(len(e.Note) + 1))
		w.word(4)
		w.word(1)
		w.WriteString(e.Note + "\x00")
		w.pad(4)
		w.word(0)
	default:
		return nil
	}
	return w.Bytes()
}

func (e ELF) attributes(order binary.ByteOrder) []byte {
	var vendor string
	var attrs []byte
	switch {
	case e.ARMArch != 0:
		vendor = "aeabi\x00"
		attrs = append([]byte{5}, "7-A\x00"...)
		attrs = append(attrs, 6, byte(e.ARMArch), 7, 'A', 28, 1)
	case e.ISA != "":
		vendor = "riscv\x00"
		attrs = append([]byte{4, 16, 5}, e.ISA+"\x00"...)
	default:
		return nil
	}
	w := &writer{order: order}
	w.WriteByte('A')
	w.word(uint64(4 + len(vendor) + 5 + len(attrs)))
	w.WriteString(vendor)
	w.WriteByte(1)
	w.word(uint64(5 + len(attrs)))
	w.Write(attrs)
	return w.Bytes()
}

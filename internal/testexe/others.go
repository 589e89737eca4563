package testexe

import (
	"bytes"
	"encoding/binary"
)

// PE is a Windows program to be.
type PE struct {
	Machine uint16 // 0x8664, 0xaa64, 0x14c
	Library bool
	Managed bool // .NET
	Imports []string
}

// Bytes writes the file: headers, and one section with the imports.
func (p PE) Bytes() []byte {
	const address, offset = 0x1000, 0x200
	plus := p.Machine != 0x14c && p.Machine != 0x1c4
	le := binary.LittleEndian
	b := make([]byte, offset)
	copy(b, "MZ")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	le.PutUint16(b[68:], p.Machine)
	le.PutUint16(b[70:], 1)
	size, directories := 224, 96
	magic := uint16(0x10b)
	if plus {
		size, directories, magic = 240, 112, 0x20b
	}
	le.PutUint16(b[84:], uint16(size))
	flags := uint16(2)
	if p.Library {
		flags |= 0x2000
	}
	le.PutUint16(b[86:], flags)
	o := b[88:]
	le.PutUint16(o, magic)
	le.PutUint16(o[68:], 3)
	le.PutUint32(o[directories-4:], 16)
	var section bytes.Buffer
	if len(p.Imports) > 0 {
		le.PutUint32(o[directories+8:], address)
		names := 20 * (len(p.Imports) + 1)
		for _, name := range p.Imports {
			entry := make([]byte, 20)
			le.PutUint32(entry[12:], uint32(address+names))
			section.Write(entry)
			names += len(name) + 1
		}
		section.Write(make([]byte, 20))
		for _, name := range p.Imports {
			section.WriteString(name + "\x00")
		}
	}
	section.Write(make([]byte, 64))
	if p.Managed {
		le.PutUint32(o[directories+8*14:], address)
	}
	s := b[88+size:]
	copy(s, ".data")
	le.PutUint32(s[8:], uint32(section.Len()))
	le.PutUint32(s[12:], address)
	le.PutUint32(s[16:], uint32(section.Len()))
	le.PutUint32(s[20:], offset)
	le.PutUint32(s[36:], 0xc0000040)
	return append(b, section.Bytes()...)
}

// MachO is a macOS program to be.
type MachO struct {
	CPU       uint32 // 0x01000007, 0x0100000c
	Loader    string
	Libraries []string
}

// Bytes writes the file: a header and commands.
func (m MachO) Bytes() []byte {
	le := binary.LittleEndian
	var commands []byte
	n := 0
	add := func(kind uint32, head int, text string) {
		c := make([]byte, (head+len(text)+8)&^7)
		le.PutUint32(c, kind)
		le.PutUint32(c[4:], uint32(len(c)))
		le.PutUint32(c[8:], uint32(head))
		copy(c[head:], text)
		commands = append(commands, c...)
		n++
	}
	if m.Loader != "" {
		add(0xe, 12, m.Loader)
	}
	for _, l := range m.Libraries {
		add(0xc, 24, l)
	}
	b := make([]byte, 32)
	for i, v := range []uint32{0xfeedfacf, m.CPU, 0, 2, uint32(n), uint32(len(commands)), 0, 0} {
		le.PutUint32(b[4*i:], v)
	}
	return append(b, commands...)
}

// Fat is the header of a Mach-O file for several machines, by their numbers.
func Fat(cpus ...uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0xcafebabe)
	b = binary.BigEndian.AppendUint32(b, uint32(len(cpus)))
	for _, cpu := range cpus {
		for _, v := range []uint32{cpu, 0, 4096, 16, 12} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	return append(b, make([]byte, 64)...)
}

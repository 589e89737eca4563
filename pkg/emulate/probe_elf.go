package emulate

import "encoding/binary"

// exit386 and exitArm are whole programs: an ELF header, one segment, exit(0).
var (
	exit386 = tinyELF(3, 0, []byte{
		0x31, 0xdb, // xor ebx, ebx
		0x31, 0xc0, // xor eax, eax
		0x40,       // inc eax: exit
		0xcd, 0x80, // int 0x80
	})
	exitArm = tinyELF(40, 0x05000000, []byte{ // e_flags: EABI version 5
		0x00, 0x00, 0xa0, 0xe3, // mov r0, #0
		0x01, 0x70, 0xa0, 0xe3, // mov r7, #1: exit
		0x00, 0x00, 0x00, 0xef, // svc 0
	})
)

// tinyELF wraps little-endian 32-bit code into an executable loaded at 0x10000.
func tinyELF(machine uint16, flags uint32, code []byte) []byte {
	const base, header = 0x10000, 52 + 32
	le := binary.LittleEndian
	b := make([]byte, header, header+len(code))
	copy(b, []byte{0x7f, 'E', 'L', 'F', 1, 1, 1})
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint32(b[24:], base+header) // e_entry
	le.PutUint32(b[28:], 52)          // e_phoff
	le.PutUint32(b[36:], flags)
	le.PutUint16(b[40:], 52) // e_ehsize
	le.PutUint16(b[42:], 32) // e_phentsize
	le.PutUint16(b[44:], 1)  // e_phnum
	ph := b[52:]
	le.PutUint32(ph[0:], 1) // PT_LOAD
	le.PutUint32(ph[8:], base)
	le.PutUint32(ph[12:], base)
	size := uint32(header + len(code))
	le.PutUint32(ph[16:], size)
	le.PutUint32(ph[20:], size)
	le.PutUint32(ph[24:], 5) // R+X
	le.PutUint32(ph[28:], 0x1000)
	return append(b, code...)
}

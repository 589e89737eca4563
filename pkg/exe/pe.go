package exe

import "encoding/binary"

const (
	maxSections = 96      // what Windows loads
	keepImports = 1 << 20 // of the section that the imports are in
)

// peFile is what is needed of a PE file's headers.
type peFile struct {
	machine, flags, subsystem uint16
	plus                      bool
	imports, clr              int64 // addresses; 0: none
	sections                  []peSection
}

type peSection struct {
	addr, size, off, rawSize int64
	flags                    uint32
}

func readPE(w *window) (p peFile, ok bool) {
	le := binary.LittleEndian
	b, ok := w.bytes(0, 64)
	if !ok || string(b[:2]) != "MZ" {
		return p, false
	}
	at := int64(le.Uint32(b[60:]))
	b, ok = w.bytes(at, 24)
	if !ok || string(b[:4]) != "PE\x00\x00" {
		return p, false
	}
	p.machine, p.flags = le.Uint16(b[4:]), le.Uint16(b[22:])
	count, optional := int64(le.Uint16(b[6:])), int64(le.Uint16(b[20:]))
	o, ok := w.bytes(at+24, optional)
	if !ok {
		return p, false
	}
	directories, counted := 96, 92
	if len(o) >= 2 && le.Uint16(o) == 0x20b {
		p.plus, directories, counted = true, 112, 108
	}
	if len(o) >= 70 {
		p.subsystem = le.Uint16(o[68:])
	}
	directory := func(i int) int64 {
		if len(o) < directories || int(min(le.Uint32(o[counted:]), 16)) <= i || len(o) < directories+8*i+8 {
			return 0
		}
		return int64(le.Uint32(o[directories+8*i:]))
	}
	p.imports, p.clr = directory(1), directory(14)
	s, ok := w.bytes(at+24+optional, min(count, maxSections)*40)
	if !ok {
		return p, true
	}
	for ; len(s) >= 40; s = s[40:] {
		p.sections = append(p.sections, peSection{
			addr: int64(le.Uint32(s[12:])), size: int64(le.Uint32(s[8:])),
			rawSize: int64(le.Uint32(s[16:])), off: int64(le.Uint32(s[20:])), flags: le.Uint32(s[36:]),
		})
	}
	return p, true
}

// offset is where an address is in the file; -1 when it is not.
func (p *peFile) offset(addr int64) (off, left int64) {
	for _, s := range p.sections {
		if addr >= s.addr && addr-s.addr < s.rawSize {
			return addr - s.addr + s.off, s.rawSize - (addr - s.addr)
		}
	}
	return -1, 0
}

// data reports whether Go's build information may be at the section's start.
func (s *peSection) data() bool {
	const initialized, writable = 0x40, 0x80000000
	return s.flags&initialized != 0 && s.flags&writable != 0
}

func peSpans(w *window, out []span) []span {
	p, ok := readPE(w)
	if !ok {
		return out
	}
	if off, left := p.offset(p.imports); p.imports > 0 && off >= 0 {
		out = append(out, span{off, off + min(left, keepImports)})
	}
	for _, s := range p.sections {
		if s.data() {
			out = append(out, span{s.off, s.off + min(s.rawSize, keepData)})
			break
		}
	}
	return out
}

// peMachines are COFF's numbers. .NET marks what was compiled ahead for another system by a number that is
// combined with the machine's (ReadyToRun: IMAGE_FILE_MACHINE_NATIVE_OS_OVERRIDE).
var peMachines = map[uint16][2]string{
	0x014c: {"386", "i386"}, 0x8664: {"amd64", "x86-64"}, 0xaa64: {"arm64", "AArch64"}, 0x01c4: {"arm", "32-bit Arm"}, 0x01c0: {"arm", "32-bit Arm"},
	0x5064: {"riscv64", "64-bit RISC-V"}, 0x6264: {"loong64", "LoongArch"}, 0x0200: {"", "IA-64"}, 0x0ebc: {"", "EFI byte code"},
}

var peSystems = map[uint16]string{0: "windows", 0x4644: "darwin", 0xadc4: "freebsd", 0x7b79: "linux", 0x1993: "netbsd", 0x1992: "solaris"}

func parsePE(w *window) *File {
	p, ok := readPE(w)
	if !ok {
		return nil
	}
	f := &File{Format: PE, OS: "windows", Kind: Program, Bits: 32}
	if p.plus {
		f.Bits = 64
	}
	for mask, os := range peSystems {
		if m, ok := peMachines[p.machine^mask]; ok && (mask == 0 || p.clr != 0) {
			f.Arch, f.Machine, f.OS = m[0], m[1], os
		}
	}
	if f.Machine == "" {
		f.Machine = "an unknown machine"
	}
	const executable, library = 0x2, 0x2000
	switch {
	case p.flags&library != 0:
		f.Kind = Library
	case p.flags&executable == 0:
		f.Kind = Object
	case p.subsystem >= 10 && p.subsystem <= 13: // EFI
		f.Kind, f.OS = Object, ""
	}
	f.Managed = p.clr != 0
	if p.imports > 0 {
		imports(f, &p, w)
	}
	for _, s := range p.sections {
		if s.data() {
			f.Go = goBuild(w, s.off, min(s.rawSize, keepData))
			break
		}
	}
	return f
}

// imports lists the libraries of the import directory: entries of 20 bytes up to one of zeros.
func imports(f *File, p *peFile, w *window) {
	off, _ := p.offset(p.imports)
	for i := range int64(maxNeeded) {
		b, ok := w.bytes(off+20*i, 20)
		if off < 0 || !ok {
			return
		}
		name := int64(binary.LittleEndian.Uint32(b[12:]))
		if name == 0 {
			return
		}
		at, _ := p.offset(name)
		if s, ok := w.cString(at, 256); ok {
			f.Needed = append(f.Needed, s)
		}
	}
}

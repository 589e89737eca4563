package exe

import (
	"strings"
)

const (
	dtNeeded, dtStrtab, dtStrsz, dtSoname, dtRPath, dtRunPath = 1, 5, 10, 14, 15, 29
	dtFlags1                                                  = 0x6ffffffb
	df1PIE                                                    = 0x08000000

	maxNeeded = 1024
	maxString = 4096
)

// dynamic reads the dynamic section: what the loader is told.
func dynamic(f *File, h *elfHeader, segments []segment, w *window, at segment) {
	b := w.upTo(at.off, min(at.filesz, keepDynamic))
	d := fields{b: b, order: h.order}
	var needed []uint64
	var strtab, soname, rpath, runpath uint64
	has := map[uint64]bool{}
	for len(d.b) >= h.bits/4 {
		tag, v := d.word(h.bits), d.word(h.bits)
		has[tag] = true
		switch tag {
		case 0:
			d.b = nil
		case dtNeeded:
			if len(needed) < maxNeeded {
				needed = append(needed, v)
			}
		case dtStrtab:
			strtab = v
		case dtSoname:
			soname = v
		case dtRPath:
			rpath = v
		case dtRunPath:
			runpath = v
		case dtFlags1:
			if v&df1PIE != 0 {
				f.Kind = Program
			}
		}
		if len(has) > 4096 {
			break
		}
	}
	off := fileOffset(segments, strtab)
	if off < 0 {
		return
	}
	text := func(v uint64) string {
		if v > 1<<32 {
			return ""
		}
		s, _ := w.cString(off+int64(v), maxString)
		return s
	}
	for _, v := range needed {
		if s := text(v); s != "" {
			f.Needed = append(f.Needed, s)
		}
	}
	if has[dtSoname] {
		f.Soname = text(soname)
	}
	if has[dtRPath] {
		f.RPath = paths(text(rpath))
	}
	if has[dtRunPath] {
		f.RunPath = paths(text(runpath))
	}
}

func paths(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ":")
}

// fileOffset is where an address is in the file; -1 when it is not.
func fileOffset(segments []segment, addr uint64) int64 {
	a := signed(addr)
	for _, s := range segments {
		if s.kind == ptLoad && a >= s.addr && a-s.addr < s.filesz {
			return a - s.addr + s.off
		}
	}
	return -1
}

// notes reads a segment of notes.
func notes(f *File, h *elfHeader, b []byte, align int64) {
	if align != 8 {
		align = 4
	}
	pad := func(n uint32) int { return int((int64(n) + align - 1) &^ (align - 1)) }
	for len(b) >= 12 {
		nameSize, descSize, kind := h.order.Uint32(b), h.order.Uint32(b[4:]), h.order.Uint32(b[8:])
		// The name is padded to 4 bytes, name and header together to the alignment.
		if nameSize > 64 || descSize > keepNote {
			return
		}
		start := pad(12 + nameSize)
		if align == 4 {
			start = 12 + pad(nameSize)
		}
		end := start + int(descSize)
		if end > len(b) {
			return
		}
		name := strings.TrimRight(string(b[12:12+min(int(nameSize), len(b)-12)]), "\x00")
		note(f, h, name, kind, b[start:end])
		next := pad(uint32(end))
		if next > len(b) {
			return
		}
		b = b[next:]
	}
}

func note(f *File, h *elfHeader, name string, kind uint32, desc []byte) {
	switch {
	case name == "GNU" && kind == 1 && len(desc) >= 4: // NT_GNU_ABI_TAG
		switch h.order.Uint32(desc) {
		case 0:
			f.OS = "linux"
		case 1:
			f.OS = "hurd"
		case 2:
			f.OS = "solaris"
		case 3:
			f.OS = "freebsd"
		}
	case name == "GNU" && kind == 5: // NT_GNU_PROPERTY_TYPE_0
		gnuProperties(f, h, desc)
	case name == "FreeBSD" && kind == 1:
		f.OS = "freebsd"
	case name == "NetBSD" && kind == 1:
		f.OS = "netbsd"
	case name == "OpenBSD" && kind == 1:
		f.OS = "openbsd"
	case name == "DragonFly" && kind == 1:
		f.OS = "dragonfly"
	case name == "Android" && kind == 1:
		f.OS = "android"
	}
}

// gnuProperties reads the level of x86-64 that a file needs (x86-64 psABI, "Program Property").
func gnuProperties(f *File, h *elfHeader, b []byte) {
	const isa1Needed = 0xc0008002
	for len(b) >= 8 {
		kind, n := h.order.Uint32(b), int64(h.order.Uint32(b[4:]))
		b = b[8:]
		if n > int64(len(b)) {
			return
		}
		if kind == isa1Needed && n >= 4 && h.machine == emX86_64 {
			switch bits := h.order.Uint32(b); {
			case bits&8 != 0:
				f.X86 = 4
			case bits&4 != 0:
				f.X86 = 3
			case bits&2 != 0:
				f.X86 = 2
			}
		}
		align := int64(4)
		if h.bits == 64 {
			align = 8
		}
		if n = (n + align - 1) &^ (align - 1); n > int64(len(b)) {
			return
		}
		b = b[n:]
	}
}

// attributes reads a section of build attributes: the same form for Arm (vendor "aeabi", IHI 0045) and RISC-V ("riscv").
func attributes(f *File, h *elfHeader, b []byte) {
	if len(b) < 1 || b[0] != 'A' {
		return
	}
	b = b[1:]
	for len(b) >= 4 {
		n := int64(h.order.Uint32(b))
		if n < 4 || n > int64(len(b)) {
			return
		}
		vendor := fields{b: b[4:n], order: h.order}
		b = b[n:]
		name := vendor.text()
		if name != "aeabi" && name != "riscv" {
			continue
		}
		for len(vendor.b) >= 5 {
			sub := fields{b: vendor.b, order: h.order}
			tag, size := sub.u8(), int64(sub.u32())
			if size < 5 || size > int64(len(vendor.b)) {
				return
			}
			if tag == 1 { // of the file
				fileAttributes(f, name, fields{b: vendor.b[5:size], order: h.order})
			}
			vendor.b = vendor.b[size:]
		}
	}
}

func fileAttributes(f *File, vendor string, a fields) {
	for len(a.b) > 0 && !a.bad {
		tag := a.uleb()
		var text string
		var v uint64
		switch {
		case vendor == "aeabi" && tag == 32:
			v = a.uleb()
			text = a.text()
		case vendor == "aeabi" && (tag == 4 || tag == 5), tag > 32 && tag%2 == 1, vendor == "riscv" && tag%2 == 1:
			text = a.text()
		default:
			v = a.uleb()
		}
		if a.bad {
			return
		}
		if vendor == "riscv" {
			if tag == 5 && len(text) <= maxString && f.RISCV != nil {
				f.RISCV.ISA = text
			}
			continue
		}
		armAttribute(f, tag, v, text)
	}
}

// armAttribute keeps what Addenda32 calls Tag_CPU_name, Tag_CPU_arch, Tag_CPU_arch_profile and Tag_ABI_VFP_args.
func armAttribute(f *File, tag, v uint64, text string) {
	if f.ARM == nil {
		return
	}
	switch tag {
	case 5:
		if len(text) <= 64 {
			f.ARM.CPU = text
		}
	case 6:
		if v < uint64(len(armArches)) {
			f.ARM.Version = armArches[v]
		} else {
			f.ARM.Version = 8
		}
	case 7:
		if v == 'A' || v == 'R' || v == 'M' || v == 'S' {
			f.ARM.Profile = string(rune(v))
		}
	case 28:
		if f.ARM.Float == "" {
			switch v {
			case 0:
				f.ARM.Float = SoftFloat
			case 1:
				f.ARM.Float = HardFloat
			}
		}
	}
}

// armArches are the values of Tag_CPU_arch: pre-v4, v4, v4T, v5T, v5TE, v5TEJ, v6, v6KZ, v6T2, v6K, v7, v6-M, v6S-M, v7E-M, v8-A, ...
var armArches = []int{4, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 6, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9}

// mipsFlags reads .MIPS.abiflags.
func mipsFlags(f *File, h *elfHeader, b []byte) {
	if len(b) < 24 || f.MIPS == nil {
		return
	}
	switch b[7] { // Val_GNU_MIPS_ABI_FP_*
	case 1, 5, 6, 7:
		f.MIPS.Float = HardFloat
	case 2:
		f.MIPS.Float = SingleFloat
	case 3:
		f.MIPS.Float = SoftFloat
	}
}

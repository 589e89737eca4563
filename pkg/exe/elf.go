package exe

import (
	"encoding/binary"
	"strings"
)

// Numbers of the gABI and of processors' supplements.
const (
	ptLoad        = 1
	ptDynamic     = 2
	ptInterp      = 3
	ptNote        = 4
	ptGNUProperty = 0x6474e553
	ptProc0       = 0x70000000 // PT_RISCV_ATTRIBUTES is 3, PT_MIPS_ABIFLAGS is 3
	ptProc9       = 0x70000009

	shtAttributes = 0x70000003 // ARM and RISC-V

	etRel, etExec, etDyn, etCore = 1, 2, 3, 4

	maxNotes        = 32 // segments of notes; files have three
	maxDataSegments = 8  // that are searched for Go's build information

	maxPhdrs = 512  // read of one file; Linux takes at most 64 KiB of them
	maxShdrs = 8192 // the same; attributes stand in linked files, which have some forty
)

// What is kept of a file's parts, in bytes.
const (
	keepStrings = 6 << 20  // of the first segment: the names of libraries are in it
	keepData    = 1 << 20  // of each segment with data: Go's build information, or what patchelf moved
	keepTail    = 64 << 10 // behind the last segment: sections of attributes
	keepNote    = 64 << 10
	keepDynamic = 256 << 10
)

// elfHeader is the file header, as far as it is needed.
type elfHeader struct {
	bits             int
	order            binary.ByteOrder
	osabi            uint8
	kind, machine    uint16
	flags            uint32
	phoff, shoff     int64
	phentsize, phnum int
	shentsize, shnum int
}

// segment is a program header.
type segment struct {
	kind, flags       uint32
	off, addr, filesz int64
	memsz, align      int64
}

func readELFHeader(w *window) (h elfHeader, ok bool) {
	id, ok := w.bytes(0, 16)
	if !ok || string(id[:4]) != "\x7fELF" {
		return h, false
	}
	switch id[4] {
	case 1:
		h.bits = 32
	case 2:
		h.bits = 64
	default:
		return h, false
	}
	switch id[5] {
	case 1:
		h.order = binary.LittleEndian
	case 2:
		h.order = binary.BigEndian
	default:
		return h, false
	}
	h.osabi = id[7]
	n := int64(52)
	if h.bits == 64 {
		n = 64
	}
	b, ok := w.bytes(0, n)
	if !ok {
		return h, false
	}
	f := fields{b: b[16:], order: h.order}
	h.kind, h.machine = f.u16(), f.u16()
	f.u32()        // version
	f.word(h.bits) // entry
	h.phoff, h.shoff = signed(f.word(h.bits)), signed(f.word(h.bits))
	h.flags = f.u32()
	f.u16() // size of this header
	h.phentsize, h.phnum = int(f.u16()), int(f.u16())
	h.shentsize, h.shnum = int(f.u16()), int(f.u16())
	return h, true
}

// segments reads the program headers.
func (h *elfHeader) segments(w *window) ([]segment, bool) {
	size := 32
	if h.bits == 64 {
		size = 56
	}
	if h.phnum == 0 {
		return nil, true
	}
	if h.phentsize < size {
		return nil, false
	}
	n := min(h.phnum, maxPhdrs)
	b, ok := w.bytes(h.phoff, int64(n)*int64(h.phentsize))
	if !ok {
		return nil, false
	}
	out := make([]segment, 0, n)
	for i := range n {
		f := fields{b: b[i*h.phentsize:], order: h.order}
		var s segment
		s.kind = f.u32()
		if h.bits == 64 {
			s.flags = f.u32()
		}
		s.off, s.addr = signed(f.word(h.bits)), signed(f.word(h.bits))
		f.word(h.bits)
		s.filesz, s.memsz = signed(f.word(h.bits)), signed(f.word(h.bits))
		if h.bits == 32 {
			s.flags = f.u32()
		}
		s.align = signed(f.word(h.bits))
		if s.off < 0 || s.filesz < 0 || s.addr < 0 {
			continue
		}
		out = append(out, s)
	}
	return out, true
}

// elfSpans says what is wanted of a file of which the head is known.
func elfSpans(w *window, out []span) []span {
	h, ok := readELFHeader(w)
	if !ok || h.kind != etExec && h.kind != etDyn {
		return out // of objects the header is enough
	}
	add := func(off, n, most int64) {
		if off < 0 || n <= 0 || len(out) >= maxSpans {
			return
		}
		out = append(out, span{off, off + min(n, most)})
	}
	add(h.shoff, int64(h.shnum)*int64(h.shentsize), maxShdrs*64)
	segments, ok := h.segments(w)
	if !ok {
		// The program headers stand elsewhere (patchelf moves them to the end): keep what there is room for.
		add(h.phoff, int64(h.phnum)*int64(h.phentsize), maxPhdrs*64)
		add(0, w.size, keepStrings)
		return out
	}
	dynamic := false
	end := int64(0)
	for _, s := range segments {
		dynamic = dynamic || s.kind == ptDynamic
		if s.kind == ptLoad && s.off < w.size && s.filesz < w.size {
			end = max(end, s.off+s.filesz)
		}
	}
	first := true
	for _, s := range segments {
		switch {
		case s.kind == ptLoad && s.flags&2 != 0:
			add(s.off, s.filesz, keepData)
			first = false
		case s.kind == ptLoad && first && dynamic:
			add(s.off, s.filesz, keepStrings)
			first = false
		case s.kind == ptDynamic:
			add(s.off, s.filesz, keepDynamic)
		case s.kind == ptInterp, s.kind == ptNote, s.kind == ptGNUProperty, s.kind >= ptProc0 && s.kind <= ptProc9:
			add(s.off, s.filesz, keepNote)
		}
	}
	add(end, keepTail, keepTail)
	return out
}

func parseELF(w *window) *File {
	h, ok := readELFHeader(w)
	if !ok {
		return nil
	}
	f := &File{Format: ELF, Bits: h.bits, Big: h.order == binary.BigEndian, OSABI: int(h.osabi)}
	f.Arch, f.Machine = elfMachine(&h)
	if os, ok := osABIs[h.osabi]; ok {
		f.OS = os
	}
	elfFlags(f, &h)
	switch h.kind {
	case etExec:
		f.Kind = Program
	case etDyn:
		f.Kind = Library
	case etRel:
		f.Kind = Object
		return f
	case etCore:
		f.Kind = Core
		return f
	default:
		f.Kind = Object // of a system's or processor's own type
		return f
	}
	segments, ok := h.segments(w)
	if !ok {
		f.Partial = true
		return f
	}
	noted := 0
	tables := 0 // a file has one dynamic section; what claims more is not read more often
	for _, s := range segments {
		switch {
		case s.kind == ptInterp:
			if name, ok := w.cString(s.off, min(s.filesz, 4096)); ok {
				f.Interp = name
				f.Kind = Program
			}
		case (s.kind == ptNote || s.kind == ptGNUProperty) && noted < maxNotes:
			noted++
			notes(f, &h, w.upTo(s.off, min(s.filesz, keepNote)), s.align)
		case s.kind == ptProc0+3 && h.machine == emRISCV:
			attributes(f, &h, w.upTo(s.off, min(s.filesz, keepNote)))
		case s.kind == ptProc0+3 && h.machine == emMIPS:
			mipsFlags(f, &h, w.upTo(s.off, min(s.filesz, keepNote)))
		case s.kind == ptDynamic && tables == 0:
			tables++
			dynamic(f, &h, segments, w, s)
		}
	}
	if h.machine == emARM || h.machine == emRISCV && (f.RISCV == nil || f.RISCV.ISA == "") {
		sections(f, &h, w)
	}
	looked := 0
	for _, s := range segments {
		if s.kind == ptLoad && s.flags&2 != 0 && f.Go == nil && looked < maxDataSegments {
			looked++
			f.Go = goBuild(w, s.off, min(s.filesz, keepData))
		}
	}
	if f.OS == "" || f.OS == "linux" {
		if os := interpOS(f); os != "" {
			f.OS = os
		}
	}
	if os := f.Go.Setting("GOOS"); os != "" { // tells Android from Linux, and illumos from Solaris
		f.OS = os
	}
	return f
}

// sections looks for the attributes, which no segment has on Arm.
func sections(f *File, h *elfHeader, w *window) {
	size := 40
	if h.bits == 64 {
		size = 64
	}
	if h.shnum == 0 || h.shentsize < size {
		return
	}
	n := min(h.shnum, maxShdrs)
	b, ok := w.bytes(h.shoff, int64(n)*int64(h.shentsize))
	if !ok {
		return
	}
	for i := range n {
		s := fields{b: b[i*h.shentsize:], order: h.order}
		s.u32() // name
		if s.u32() != shtAttributes {
			continue
		}
		s.word(h.bits)
		s.word(h.bits)
		off, length := signed(s.word(h.bits)), signed(s.word(h.bits))
		if length > 0 {
			attributes(f, h, w.upTo(off, min(length, keepTail)))
		}
		return
	}
}

// interpOS tells the system by its dynamic loader.
func interpOS(f *File) string {
	switch {
	case f.Interp == "":
	case strings.HasPrefix(f.Interp, "/system/bin/linker"):
		return "android"
	case strings.HasPrefix(f.Interp, "/libexec/ld-elf"), strings.HasPrefix(f.Interp, "/usr/libexec/ld-elf.so.1"):
		return "freebsd"
	case f.Interp == "/usr/libexec/ld-elf.so.2":
		return "dragonfly"
	case f.Interp == "/usr/libexec/ld.elf_so":
		return "netbsd"
	case f.Interp == "/usr/libexec/ld.so":
		return "openbsd"
	case f.Interp == "/lib/amd64/ld.so.1", f.Interp == "/usr/lib/amd64/ld.so.1", f.Interp == "/usr/lib/ld.so.1":
		if f.OS == "" {
			return "solaris"
		}
	}
	return ""
}

// osABIs are the values of EI_OSABI that name a system. 0 is anybody's, 3 is written by GNU's tools for
// what needs an extension of theirs, on Linux and the Hurd alike.
var osABIs = map[uint8]string{
	2: "netbsd", 6: "solaris", 7: "aix", 8: "irix", 9: "freebsd", 12: "openbsd",
}

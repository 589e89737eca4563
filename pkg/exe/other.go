package exe

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// sniff tells the format from the first four bytes.
func sniff(b []byte) Format {
	switch {
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return ELF
	case bytes.HasPrefix(b, []byte("#!")):
		return Script
	case bytes.HasPrefix(b, []byte("MZ")):
		return PE
	case bytes.HasPrefix(b, []byte("\x00asm")):
		return Wasm
	}
	if len(b) < 4 {
		return ""
	}
	switch binary.BigEndian.Uint32(b) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe, 0xcafebabe, 0xcafebabf:
		return MachO
	case 0x01eb, 0x8a97, 0x0647, 0x407: // Plan 9's _MAGIC(f, b) of 386, amd64, arm and mips
		return Plan9
	}
	switch binary.BigEndian.Uint16(b) {
	case 0x01df, 0x01f7:
		return XCOFF
	}
	return ""
}

// parseScript reads the first line as Linux does (fs/binfmt_script.c): the interpreter, and all of the rest as one argument.
func parseScript(w *window) *File {
	b := w.upTo(0, scriptSize)
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	if len(line) < 2 {
		return nil
	}
	if i := bytes.IndexByte(line, 0); i >= 0 {
		line, whole = line[:i], true
	}
	if !bytes.HasPrefix(line, []byte("#!")) {
		return nil
	}
	text := strings.Trim(string(line[2:]), " \t")
	i := strings.IndexAny(text, " \t")
	f := &File{Format: Script, Kind: Program, Interp: text}
	if i >= 0 {
		f.Interp, f.Arg = text[:i], strings.Trim(text[i:], " \t")
	}
	if !whole && int64(len(b)) < w.size && i < 0 { // the kernel refuses a name that it cannot see the end of
		return nil
	}
	// Rust's #![attributes] and the like are no interpreters.
	if f.Interp == "" || strings.HasPrefix(f.Interp, "[") {
		return nil
	}
	return f
}

// parseOther reads the formats of which the machine alone matters here.
func parseOther(format Format, w *window) *File {
	f := &File{Format: format, Kind: Program}
	b := w.upTo(0, 64)
	switch format {
	case Wasm:
		// Version 1, layer 0: a module; layer 1: a component.
		if len(b) < 8 {
			return nil
		}
		f.Arch, f.Machine, f.Bits = "wasm", "WebAssembly", 32
	case XCOFF:
		// The magic is two bytes: a section count of a sane file and a header of a known size must follow.
		f.OS, f.Big = "aix", true
		if len(b) < 24 {
			return nil
		}
		sections := binary.BigEndian.Uint16(b[2:])
		optional := binary.BigEndian.Uint16(b[16:])
		flags := binary.BigEndian.Uint16(b[18:])
		if sections == 0 || sections > 1000 || optional > 512 {
			return nil
		}
		f.Arch, f.Machine, f.Bits = "ppc", "PowerPC", 32
		if binary.BigEndian.Uint16(b) == 0x01f7 {
			f.Arch, f.Machine, f.Bits = "ppc64", "64-bit PowerPC", 64
		}
		switch {
		case flags&0x2000 != 0: // F_SHROBJ
			f.Kind = Library
		case flags&0x0002 == 0: // F_EXEC
			f.Kind = Object
		}
	case Plan9:
		// magic, text, data, bss, syms, entry, spsz, pcsz: big-endian words; the parts must fit into the file.
		if len(b) < 32 {
			return nil
		}
		f.OS, f.Bits = "plan9", 32
		sum := int64(0)
		for _, at := range []int{4, 8, 16, 28} {
			sum += int64(binary.BigEndian.Uint32(b[at:]))
		}
		if sum == 0 || sum > w.size {
			return nil
		}
		switch binary.BigEndian.Uint32(b) {
		case 0x01eb:
			f.Arch, f.Machine = "386", "i386"
		case 0x8a97:
			f.Arch, f.Machine, f.Bits = "amd64", "x86-64", 64
		case 0x0647:
			f.Arch, f.Machine = "arm", "32-bit Arm"
		default:
			f.Arch, f.Machine, f.Big = "mips", "MIPS", true
		}
	}
	return f
}

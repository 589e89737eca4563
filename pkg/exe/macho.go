package exe

import (
	"bytes"
	"encoding/binary"
)

const maxCommands = 4096

// machoCPUs are Mach-O's numbers of machines.
var machoCPUs = map[uint32][3]string{
	7: {"386", "i386", "32"}, 0x01000007: {"amd64", "x86-64", "64"}, 12: {"arm", "32-bit Arm", "32"}, 0x0100000c: {"arm64", "AArch64", "64"},
	0x0200000c: {"", "AArch64 ILP32", "32"}, 18: {"ppc", "PowerPC", "32"}, 0x01000012: {"ppc64", "64-bit PowerPC", "64"},
}

// machO is a header and the commands behind it.
type machO struct {
	order    binary.ByteOrder
	bits     int
	cpu      uint32
	kind     uint32
	commands []machoCommand
}

type machoCommand struct {
	kind uint32
	data []byte // with kind and size
}

func readMachO(w *window) (m machO, ok bool) {
	b, ok := w.bytes(0, 28)
	if !ok {
		return m, false
	}
	m.order, m.bits = binary.LittleEndian, 32
	switch binary.BigEndian.Uint32(b) {
	case 0xcefaedfe:
	case 0xcffaedfe:
		m.bits = 64
	case 0xfeedface:
		m.order = binary.BigEndian
	case 0xfeedfacf:
		m.order, m.bits = binary.BigEndian, 64
	default:
		return m, false
	}
	m.cpu, m.kind = m.order.Uint32(b[4:]), m.order.Uint32(b[12:])
	count, size := m.order.Uint32(b[16:]), m.order.Uint32(b[20:])
	at := int64(28)
	if m.bits == 64 {
		at = 32
	}
	c := w.upTo(at, int64(size))
	for range min(count, maxCommands) {
		if len(c) < 8 {
			break
		}
		kind, n := m.order.Uint32(c), int64(m.order.Uint32(c[4:]))
		if n < 8 || n > int64(len(c)) {
			break
		}
		m.commands = append(m.commands, machoCommand{kind, c[:n]})
		c = c[n:]
	}
	return m, true
}

// dataSegment is where __DATA is in the file.
func (m *machO) dataSegment() (off, size int64) {
	for _, c := range m.commands {
		switch {
		case c.kind == 0x19 && len(c.data) >= 72 && cName(c.data[8:24]) == "__DATA": // LC_SEGMENT_64
			return signed(m.order.Uint64(c.data[40:])), signed(m.order.Uint64(c.data[48:]))
		case c.kind == 1 && len(c.data) >= 56 && cName(c.data[8:24]) == "__DATA": // LC_SEGMENT
			return int64(m.order.Uint32(c.data[32:])), int64(m.order.Uint32(c.data[36:]))
		}
	}
	return -1, 0
}

func cName(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func machoSpans(w *window, out []span) []span {
	m, ok := readMachO(w)
	if !ok {
		return out
	}
	if off, size := m.dataSegment(); off >= 0 && size > 0 {
		out = append(out, span{off, off + min(size, keepData)})
	}
	return out
}

func parseMachO(w *window) *File {
	b, ok := w.bytes(0, 8)
	if !ok {
		return nil
	}
	switch binary.BigEndian.Uint32(b) {
	case 0xcafebabe, 0xcafebabf:
		return parseFat(w, binary.BigEndian.Uint32(b) == 0xcafebabf)
	}
	m, ok := readMachO(w)
	if !ok {
		return nil
	}
	cpu, known := machoCPUs[m.cpu]
	f := &File{Format: MachO, OS: "darwin", Bits: m.bits, Big: m.order == binary.BigEndian, Arch: cpu[0], Machine: cpu[1]}
	if !known {
		f.Machine = "an unknown machine"
	}
	switch m.kind {
	case 2: // MH_EXECUTE
		f.Kind = Program
	case 6, 8, 9: // MH_DYLIB, MH_BUNDLE, MH_DYLIB_STUB
		f.Kind = Library
	case 4:
		f.Kind = Core
	default:
		f.Kind = Object
	}
	for _, c := range m.commands {
		switch c.kind &^ 0x80000000 {
		case 0xc, 0x18, 0x1f, 0x20: // LC_LOAD_DYLIB, _WEAK_, _REEXPORT_, _LAZY_
			if len(f.Needed) < maxNeeded {
				f.Needed = appendText(f.Needed, &m, c)
			}
		case 0xd: // LC_ID_DYLIB
			if names := appendText(nil, &m, c); len(names) == 1 {
				f.Soname = names[0]
			}
		case 0xe: // LC_LOAD_DYLINKER
			if names := appendText(nil, &m, c); len(names) == 1 {
				f.Interp = names[0]
			}
		case 0x1c: // LC_RPATH
			if len(f.RPath) < maxNeeded {
				f.RPath = appendText(f.RPath, &m, c)
			}
		case 0x25: // LC_VERSION_MIN_IPHONEOS
			f.OS = "ios"
		case 0x32: // LC_BUILD_VERSION
			if len(c.data) >= 12 && (m.order.Uint32(c.data[8:]) == 2 || m.order.Uint32(c.data[8:]) == 7) {
				f.OS = "ios"
			}
		}
	}
	if off, size := m.dataSegment(); off >= 0 && size > 0 {
		f.Go = goBuild(w, off, min(size, keepData))
	}
	if os := f.Go.Setting("GOOS"); os != "" {
		f.OS = os
	}
	return f
}

// appendText adds the string of a command whose first word is where it stands.
func appendText(list []string, m *machO, c machoCommand) []string {
	if len(c.data) < 12 {
		return list
	}
	at := m.order.Uint32(c.data[8:])
	if at < 12 || int64(at) >= int64(len(c.data)) {
		return list
	}
	if s := cName(c.data[at:]); s != "" && len(s) <= maxString {
		list = append(list, s)
	}
	return list
}

// parseFat reads a file for several machines. Java's classes begin alike, with a version of 45 and more where this has
// the number of machines.
func parseFat(w *window, wide bool) *File {
	b, ok := w.bytes(0, 8)
	n := binary.BigEndian.Uint32(b[4:])
	if !ok || n == 0 || n >= 40 {
		return nil
	}
	size := int64(20)
	if wide {
		size = 32
	}
	f := &File{Format: MachO, OS: "darwin", Kind: Program}
	for i := range int64(n) {
		b, ok := w.bytes(8+size*i, size)
		if !ok {
			return nil
		}
		cpu, known := machoCPUs[binary.BigEndian.Uint32(b)]
		if !known {
			return nil
		}
		f.Arches = append(f.Arches, cpu[0])
		if i == 0 {
			f.Arch, f.Machine = cpu[0], cpu[1]
		}
	}
	return f
}

package emulate

import (
	"encoding/binary"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// machine is one instruction set as the kernel and qemu see it.
type machine struct {
	arch     string // as in platform.Platform.Arch
	qemu     string // qemu-QEMU-static, qemu-QEMU
	class    byte   // ELF: 1 is 32 bits, 2 is 64
	data     byte   // ELF: 1 is little endian, 2 is big
	machine  uint16 // ELF: e_machine
	flags    uint32 // ELF: bits of e_flags that are looked at
	variants []string
}

// machines is what can be emulated; values of e_machine are those of the System V ABI.
// mips: bit 0x20 of e_flags (EF_MIPS_ABI2) marks n32 programs, which another qemu runs.
var machines = []machine{
	{arch: "386", qemu: "i386", class: 1, data: 1, machine: 3},
	{arch: "amd64", qemu: "x86_64", class: 2, data: 1, machine: 62, variants: []string{"v2", "v3", "v4"}},
	{arch: "arm64", qemu: "aarch64", class: 2, data: 1, machine: 183},
	{arch: "arm", qemu: "arm", class: 1, data: 1, machine: 40, variants: []string{"v5", "v6", "v7"}},
	{arch: "riscv64", qemu: "riscv64", class: 2, data: 1, machine: 243},
	{arch: "ppc64le", qemu: "ppc64le", class: 2, data: 1, machine: 21},
	{arch: "s390x", qemu: "s390x", class: 2, data: 2, machine: 22},
	{arch: "mips64le", qemu: "mips64el", class: 2, data: 1, machine: 8},
	{arch: "mips64", qemu: "mips64", class: 2, data: 2, machine: 8},
	{arch: "mipsle", qemu: "mipsel", class: 1, data: 1, machine: 8, flags: 0x20},
	{arch: "mips", qemu: "mips", class: 1, data: 2, machine: 8, flags: 0x20},
	{arch: "loong64", qemu: "loongarch64", class: 2, data: 1, machine: 258},
}

func machineOf(arch string) (machine, bool) {
	for _, m := range machines {
		if m.arch == arch {
			return m, true
		}
	}
	return machine{}, false
}

// ArchOfELF names the architecture of a program by the first bytes of its file (40 are enough). ok is false when
// that is no ELF file, or of a machine that is not in the table.
func ArchOfELF(head []byte) (arch string, ok bool) {
	for _, m := range machines {
		magic, mask := m.pattern()
		if matches(head, magic, mask) {
			return m.arch, true
		}
	}
	return "", false
}

func matches(head, magic, mask []byte) bool {
	if len(head) < len(magic) {
		return false
	}
	for i := range magic {
		if (head[i]^magic[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}

// pattern returns magic and mask of m's programs: class, byte order, version, type (EXEC or DYN) and machine. OS ABI
// and padding are free, since some linkers and AppImages write there.
func (m machine) pattern() (magic, mask []byte) {
	n := 20
	if m.flags != 0 {
		n = 40
	}
	magic, mask = make([]byte, n), make([]byte, n)
	copy(magic, []byte{0x7f, 'E', 'L', 'F', m.class, m.data, 1})
	copy(mask, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	order := binary.ByteOrder(binary.LittleEndian)
	if m.data == 2 {
		order = binary.BigEndian
	}
	order.PutUint16(magic[16:], 2) // ET_EXEC; ET_DYN differs in the lowest bit
	order.PutUint16(mask[16:], 0xfffe)
	order.PutUint16(magic[18:], m.machine)
	order.PutUint16(mask[18:], 0xffff)
	if m.flags != 0 { // e_flags of a 32-bit header
		order.PutUint32(mask[36:], m.flags)
	}
	return magic, mask
}

// platforms lists every platform of the table, variants after their architecture.
func platforms() []platform.Platform {
	var out []platform.Platform
	for _, m := range machines {
		if m.arch != "arm" { // plain arm is arm/v7
			out = append(out, platform.Platform{OS: "linux", Arch: m.arch})
		}
		for _, v := range m.variants {
			out = append(out, platform.Platform{OS: "linux", Arch: m.arch, Variant: v})
		}
	}
	return out
}

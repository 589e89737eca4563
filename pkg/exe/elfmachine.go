package exe

import "strconv"

const (
	emX86_64 = 62
	emARM    = 40
	emMIPS   = 8
	emPPC64  = 21
	emRISCV  = 243
)

// machineNames are the ELF machines that people meet in images, platforms or not.
var machineNames = map[uint16]string{
	2: "SPARC", 3: "i386", 4: "m68k", 8: "MIPS", 10: "MIPS", 15: "PA-RISC", 18: "SPARC", 20: "PowerPC", 21: "64-bit PowerPC",
	22: "S/390", 40: "32-bit Arm", 42: "SuperH", 43: "64-bit SPARC", 50: "IA-64", 62: "x86-64", 83: "AVR", 92: "OpenRISC",
	93: "ARC", 94: "Xtensa", 105: "MSP430", 106: "Blackfin", 113: "Nios II", 164: "Hexagon", 183: "AArch64",
	189: "MicroBlaze", 190: "CUDA", 195: "ARC", 224: "AMD GPU", 243: "RISC-V", 247: "BPF", 252: "C-SKY", 253: "ARC", 258: "LoongArch",
	0x9026: "Alpha", 0x5441: "FR-V", 0x9080: "V850",
}

// elfMachine gives Go's name of an ELF machine, "" when it has none, and what people call it.
func elfMachine(h *elfHeader) (arch, name string) {
	name = machineNames[h.machine]
	if name == "" {
		name = "machine " + strconv.Itoa(int(h.machine))
	}
	big := h.order.String() == "BigEndian"
	pick := func(little, bigEndian string) string {
		if big {
			return bigEndian
		}
		return little
	}
	switch h.machine {
	case 3:
		arch = "386"
	case emX86_64:
		arch = "amd64"
		if h.bits == 32 {
			return "amd64p32", "x32"
		}
	case emARM:
		arch = pick("arm", "armbe")
		name += pick("", " big-endian")
	case 183:
		if h.bits == 32 {
			return "", "AArch64 ILP32"
		}
		arch = pick("arm64", "arm64be")
		name += pick("", " big-endian")
	case emMIPS, 10:
		const abi2 = 0x20 // EF_MIPS_ABI2: n32
		switch {
		case h.bits == 64:
			return pick("mips64le", "mips64"), pick("64-bit MIPS little-endian", "64-bit MIPS")
		case h.flags&abi2 != 0:
			return pick("mips64p32le", "mips64p32"), pick("MIPS n32 little-endian", "MIPS n32")
		}
		return pick("mipsle", "mips"), pick("MIPS little-endian", "MIPS")
	case 20:
		arch = pick("", "ppc")
	case emPPC64:
		return pick("ppc64le", "ppc64"), pick("64-bit PowerPC little-endian", "64-bit PowerPC")
	case 22:
		if arch = "s390"; h.bits == 64 {
			return "s390x", "s390x"
		}
	case emRISCV:
		if arch, name = "riscv", "32-bit RISC-V"; h.bits == 64 {
			arch, name = "riscv64", "64-bit RISC-V"
		}
	case 258:
		if arch = ""; h.bits == 64 {
			arch = "loong64"
		}
	case 2, 18:
		arch = "sparc"
	case 43:
		arch = "sparc64"
	}
	return arch, name
}

// elfFlags reads e_flags.
func elfFlags(f *File, h *elfHeader) {
	switch h.machine {
	case emARM:
		// EF_ARM_EABIMASK, EF_ARM_ABI_FLOAT_HARD, EF_ARM_ABI_FLOAT_SOFT (IHI 0044). Relocatable files leave the latter out.
		f.ARM = &ARM{EABI: int(h.flags >> 24)}
		if h.flags&0x400 != 0 {
			f.ARM.Float = HardFloat
		} else if h.flags&0x200 != 0 {
			f.ARM.Float = SoftFloat
		}
	case emRISCV:
		floats := []Float{SoftFloat, SingleFloat, HardFloat, QuadFloat}
		f.RISCV = &RISCV{Compressed: h.flags&1 != 0, Float: floats[h.flags>>1&3], Embedded: h.flags&8 != 0}
	case emPPC64:
		f.PPC64 = int(h.flags & 3)
	case emMIPS, 10:
		f.MIPS = &MIPS{NaN2008: h.flags&0x400 != 0}
		isa := []string{"mips1", "mips2", "mips3", "mips4", "mips5", "mips32", "mips64", "mips32r2", "mips64r2", "mips32r6", "mips64r6"}
		if n := int(h.flags >> 28); n < len(isa) {
			f.MIPS.ISA = isa[n]
		}
		switch h.flags & 0xf000 {
		case 0x1000:
			f.MIPS.ABI = "o32"
		case 0x2000:
			f.MIPS.ABI = "o64"
		case 0x3000:
			f.MIPS.ABI = "eabi32"
		case 0x4000:
			f.MIPS.ABI = "eabi64"
		default:
			switch {
			case h.flags&0x20 != 0:
				f.MIPS.ABI = "n32"
			case h.bits == 64:
				f.MIPS.ABI = "n64"
			}
		}
	}
}

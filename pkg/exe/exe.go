// Package exe reads what executable files say about themselves: ELF, PE, Mach-O, WebAssembly, XCOFF, Plan 9's a.out and
// scripts. It is given a file's bytes once, in order, keeps the few that matter, and does no I/O.
//
// # Invariants
//
//   - No input makes it panic, and none makes it keep more than [MaxKept] bytes of one file, whatever its size.
//   - Numbers in a file are checked against what was kept before anything is allocated for them.
//   - What a file does not say is the zero value, and never guessed.
package exe

import "strings"

// Format is the format of an executable file.
type Format string

// The formats.
const (
	ELF    Format = "elf"
	PE     Format = "pe"
	MachO  Format = "macho"
	Wasm   Format = "wasm"
	XCOFF  Format = "xcoff"
	Plan9  Format = "plan9"
	Script Format = "script" // begins with #!
)

// Kind is what a file of a format is for.
type Kind string

// The kinds. Everything that is none of the first two is data to a kernel.
const (
	Program Kind = "program" // a kernel can start it
	Library Kind = "library" // a program can load it
	Object  Kind = "object"  // a linker reads it; also kernel modules and BPF programs
	Core    Kind = "core"
)

// File is what a file says about itself.
type File struct {
	Format Format `json:"format"`
	Kind   Kind   `json:"kind,omitempty"`
	// OS is Go's name of the system that it is for; "" when it does not say (an ELF file for Linux need not).
	OS string `json:"os,omitempty"`
	// Arch is Go's name of the machine; "" when no platform has it: Machine is what people call it.
	Arch    string `json:"arch,omitempty"`
	Machine string `json:"machine,omitempty"`
	Bits    int    `json:"bits,omitempty"` // 32 or 64
	Big     bool   `json:"big,omitempty"`  // endian
	OSABI   int    `json:"osabi,omitempty"`
	// Arches lists the machines of a Mach-O file for several, as Arch does.
	Arches []string `json:"arches,omitempty"`

	Interp  string   `json:"interp,omitempty"` // the dynamic loader, or a script's interpreter
	Arg     string   `json:"arg,omitempty"`    // of a script: what follows the interpreter
	Needed  []string `json:"needed,omitempty"` // libraries
	Soname  string   `json:"soname,omitempty"`
	RPath   []string `json:"rpath,omitempty"`
	RunPath []string `json:"runpath,omitempty"`

	ARM     *ARM     `json:"arm,omitempty"`
	X86     int      `json:"x86,omitempty"` // the level of x86-64 that it needs by its note: 2, 3, 4; 0 when it does not say more than 1
	RISCV   *RISCV   `json:"riscv,omitempty"`
	MIPS    *MIPS    `json:"mips,omitempty"`
	PPC64   int      `json:"ppc64,omitempty"`   // ABI level 1 or 2; 0 when it does not say
	Managed bool     `json:"managed,omitempty"` // PE: code of .NET
	Go      *GoBuild `json:"go,omitempty"`

	// Partial says that something lay outside of what is kept: lists may lack entries.
	Partial bool `json:"partial,omitempty"`
}

// Float is how functions pass floating-point numbers.
type Float string

// The ways.
const (
	HardFloat   Float = "hard"
	SoftFloat   Float = "soft"
	SingleFloat Float = "single"
	QuadFloat   Float = "quad"
)

// ARM is what a 32-bit Arm file says beyond its machine.
type ARM struct {
	EABI    int    `json:"eabi,omitempty"`    // 5 for all of today's
	Float   Float  `json:"float,omitempty"`   // from the flags, else from the attributes
	Version int    `json:"version,omitempty"` // of the architecture, from the attributes; 0 when there are none
	Profile string `json:"profile,omitempty"` // A, R, M or S (A or R)
	CPU     string `json:"cpu,omitempty"`
}

// RISCV is what a RISC-V file says beyond its machine.
type RISCV struct {
	Float      Float  `json:"float,omitempty"`
	Compressed bool   `json:"compressed,omitempty"`
	Embedded   bool   `json:"embedded,omitempty"` // RVE: 16 registers
	ISA        string `json:"isa,omitempty"`      // rv64i2p1_m2p0_...
}

// MIPS is what a MIPS file says beyond its machine.
type MIPS struct {
	ABI     string `json:"abi,omitempty"` // o32, n32, n64, o64, eabi32, eabi64
	ISA     string `json:"isa,omitempty"` // mips32r2, ...
	NaN2008 bool   `json:"nan2008,omitempty"`
	Float   Float  `json:"float,omitempty"`
}

// GoBuild is what Go's linker left in a program.
type GoBuild struct {
	Version  string            `json:"version"`
	Path     string            `json:"path,omitempty"`     // of the main package
	Main     string            `json:"main,omitempty"`     // module@version
	Deps     []string          `json:"deps,omitempty"`     // module@version
	Settings map[string]string `json:"settings,omitempty"` // GOOS, GOARCH, GOARM, ...; CGO_ENABLED; vcs.revision
}

// Setting returns a setting, "" when there is none.
func (g *GoBuild) Setting(key string) string {
	if g == nil {
		return ""
	}
	return g.Settings[key]
}

// Runnable reports whether it is something that a machine executes: a program or a library of one.
func (f *File) Runnable() bool { return f.Kind == Program || f.Kind == Library }

// String names format and machine for people: "x86-64", "32-bit Arm v7 hard-float", "a Windows program for AArch64".
func (f *File) String() string {
	m := f.Machine
	if len(f.Arches) > 1 {
		m = strings.Join(f.Arches, " and ")
	}
	if f.ARM != nil {
		if v := f.ArmVersion(); v > 0 {
			m += " v" + string(rune('0'+v%10))
		}
		if f.ARM.Float != "" {
			m += " " + string(f.ARM.Float) + "-float"
		}
	}
	switch f.Format {
	case Script:
		return "a script for " + f.Interp
	case PE:
		return "a Windows program for " + m
	case MachO:
		return "a macOS program for " + m
	case Wasm:
		return "WebAssembly"
	case XCOFF:
		return "an AIX program for " + m
	case Plan9:
		return "a Plan 9 program for " + m
	}
	if f.OS != "" && f.OS != "linux" {
		return "a program of " + f.OS + " for " + m
	}
	return m
}

// ArmVersion is the version of the Arm architecture that it needs: by its attributes, or Go's GOARM; 0 when it does not say.
func (f *File) ArmVersion() int {
	v := 0
	if f.ARM != nil {
		v = f.ARM.Version
	}
	if g := f.Go.Setting("GOARM"); g != "" && g[0] >= '5' && g[0] <= '8' {
		v = max(v, int(g[0]-'0'))
	}
	return v
}

// X86Level is the level of x86-64 that it needs: by its note, or Go's GOAMD64; 1 when it does not say.
func (f *File) X86Level() int {
	v := max(1, f.X86)
	if g := f.Go.Setting("GOAMD64"); len(g) == 2 && g[0] == 'v' && g[1] >= '1' && g[1] <= '4' {
		v = max(v, int(g[1]-'0'))
	}
	return v
}

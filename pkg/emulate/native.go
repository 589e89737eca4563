package emulate

import (
	"fmt"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/cpu"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Machine is the platform this process runs on.
func Machine() platform.Platform {
	p := platform.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}
	if p.Arch == "arm" {
		p.Variant = armVariant(uname())
	}
	return p
}

// armVariant reads the variant out of uname's machine ("armv7l", "armv6l", "armv5tejl"; "aarch64" under a 32-bit program).
func armVariant(machine string) string {
	for _, v := range []string{"v5", "v6"} {
		if strings.HasPrefix(machine, "arm"+v) {
			return v
		}
	}
	return "v7"
}

// native reports whether p's programs run without an emulator. why is set when this is the right kind of CPU, so
// that no emulator can help, but an older one than p asks for.
func (s *search) native(p platform.Platform) (why string, ok bool) {
	if p.OS != s.machine.OS {
		return "", false
	}
	switch {
	case p.Arch == "amd64" && s.machine.Arch == "amd64":
		if level := amd64Level(); level < variantNumber(p.Variant, 1) {
			return fmt.Sprintf("this CPU is amd64/v%d; a program of %s would die of an illegal instruction", level, p), false
		}
		return "", true
	case p.Arch == "arm" && s.machine.Arch == "arm":
		if have := variantNumber(s.machine.Variant, 7); have < variantNumber(p.Variant, 7) {
			return fmt.Sprintf("this CPU is arm/v%d", have), false
		}
		return "", true
	case p.Arch == s.machine.Arch:
		return "", true
	}
	return "", s.runsNatively(p.Arch)
}

// runsNatively reports whether the CPU and kernel run programs of a related, smaller architecture.
func (s *search) runsNatively(arch string) bool {
	switch s.machine.Arch + " " + arch {
	case "amd64 386":
		return compat386()
	case "arm64 arm":
		return compatArm()
	}
	return false
}

// A kernel may be built without 32-bit programs and a CPU may lack them: only running one tells.
var (
	compat386 = sync.OnceValue(func() bool { return runsELF(exit386) })
	compatArm = sync.OnceValue(func() bool { return runsELF(exitArm) })
)

// variantNumber reads "v3" as 3; def for "".
func variantNumber(v string, def int) int {
	if len(v) == 2 && v[0] == 'v' && v[1] >= '0' && v[1] <= '9' {
		return int(v[1] - '0')
	}
	return def
}

// amd64Level is the x86-64 psABI's microarchitecture level of this CPU.
func amd64Level() int {
	x := &cpu.X86
	v2 := x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42 && x.HasPOPCNT && x.HasCX16 && x.HasLAHF
	v3 := x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasF16C && x.HasFMA && x.HasLZCNT && x.HasMOVBE && x.HasOSXSAVE
	v4 := x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL
	switch {
	case v2 && v3 && v4:
		return 4
	case v2 && v3:
		return 3
	case v2:
		return 2
	}
	return 1
}

package verify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// verdict is whether a platform runs a file.
type verdict int

const (
	fits       verdict = iota
	compatible         // an older machine of the same family, which most kernels run as well
	tooNew             // the machine, but a newer one
	wrong
)

// judge says whether a machine of p runs f, and if not, why: "is x86-64", "needs x86-64-v3".
func judge(f *exe.File, p platform.Platform) (verdict, string) {
	if f.Format == exe.Script || f.Kind == exe.Core {
		return fits, ""
	}
	if !rightSystem(f, p) {
		return wrong, "is " + f.String()
	}
	if f.Format == exe.PE && f.Managed && f.Arch == "386" { // .NET's code for any machine
		return fits, ""
	}
	for _, arch := range append([]string{f.Arch}, f.Arches...) {
		if arch == p.Arch {
			return level(f, p)
		}
	}
	for _, older := range compatibles[p.Arch] {
		if f.Arch == older {
			return compatible, "is " + f.String() + ", which needs a kernel that runs 32-bit programs"
		}
	}
	return wrong, "is " + f.String()
}

// compatibles are the machines that most kernels of another run as well. Kernels of arm64 are not among
// them for arm: many of its processors cannot, and images for it are found in the index by those that can.
var compatibles = map[string][]string{
	"amd64": {"386"}, "ppc64": {"ppc"}, "s390x": {"s390"}, "sparc64": {"sparc"},
	"mips64": {"mips", "mips64p32"}, "mips64le": {"mipsle", "mips64p32le"},
}

// formats are the formats of each system's programs; all others have ELF.
var formats = map[string]exe.Format{
	"windows": exe.PE, "darwin": exe.MachO, "ios": exe.MachO, "aix": exe.XCOFF, "plan9": exe.Plan9, "js": exe.Wasm, "wasi": exe.Wasm, "wasip1": exe.Wasm,
}

// rightSystem reports whether f is for p's system, as far as it says.
func rightSystem(f *exe.File, p platform.Platform) bool {
	want, ok := formats[p.OS]
	if !ok {
		want = exe.ELF
	}
	if p.Arch == "wasm" { // wasm is run on any system
		want = exe.Wasm
	}
	switch {
	case f.Format != want:
		return false
	case f.OS == "" || f.OS == p.OS || f.Format == exe.Wasm:
		return true
	case f.OS == "solaris" && p.OS == "illumos" && f.Go == nil:
		return true
	case f.OS == "linux" && p.OS == "android" && f.Go == nil && f.Interp == "": // static programs run on both
		return true
	}
	return false
}

// level compares the level of the machine that f needs with the one that p promises.
func level(f *exe.File, p platform.Platform) (verdict, string) {
	need, have := "", ""
	switch p.Arch {
	case "amd64":
		promised := 1
		if n, ok := strings.CutPrefix(p.Variant, "v"); ok {
			promised, _ = strconv.Atoi(n)
		}
		if n := f.X86Level(); n > promised {
			return tooNew, fmt.Sprintf("needs x86-64-v%d", n)
		}
	case "arm":
		promised, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
		if n := f.ArmVersion(); err == nil && n > promised {
			return tooNew, fmt.Sprintf("needs Arm v%d", n)
		}
	case "arm64":
		n, m := armVersion(f.Go.Setting("GOARM64")), armVersion(p.Variant)
		if n > m {
			v, _, _ := strings.Cut(f.Go.Setting("GOARM64"), ",")
			return tooNew, "needs Arm " + v
		}
	case "ppc64", "ppc64le":
		need, have = f.Go.Setting("GOPPC64"), p.Variant
		if power(need) > max(8, power(have)) {
			return tooNew, "needs POWER" + strconv.Itoa(power(need))
		}
	case "riscv64":
		need, have = f.Go.Setting("GORISCV64"), p.Variant
		if profile(need) > max(20, profile(have)) {
			return tooNew, "needs the RISC-V profile " + need
		}
	case "386":
		return floats(f.Go.Setting("GO386") == "sse2", p.Variant, "SSE2")
	case "mips", "mipsle":
		return floats(f.Go.Setting("GOMIPS") == "hardfloat", p.Variant, "a floating-point unit")
	case "mips64", "mips64le":
		return floats(f.Go.Setting("GOMIPS64") == "hardfloat", p.Variant, "a floating-point unit")
	}
	return fits, ""
}

// floats judges what needs hardware for floating-point numbers. Only a variant that says so has none.
func floats(hard bool, variant, what string) (verdict, string) {
	if hard && variant == "softfloat" {
		return tooNew, "needs " + what
	}
	return fits, ""
}

// armVersion makes 802 of "v8.2,lse"; plain arm64 is 800.
func armVersion(s string) int {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), ",")
	major, minor, _ := strings.Cut(s, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 800
	}
	m, _ := strconv.Atoi(minor)
	return n*100 + m
}

// power makes 9 of "power9".
func power(s string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(strings.ToLower(s), "power"))
	return n
}

// profile makes 22 of "rva22u64".
func profile(s string) int {
	s = strings.TrimPrefix(strings.ToLower(s), "rva")
	if len(s) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(s[:2])
	return n
}

// platformOf is the platform that a file is for, for exceptions.
func platformOf(f *exe.File) (platform.Platform, bool) {
	if f.Arch == "" {
		return platform.Platform{}, false
	}
	p := platform.Platform{OS: f.OS, Arch: f.Arch}
	if p.OS == "" {
		p.OS = "linux"
	}
	switch f.Arch {
	case "amd64":
		if n := f.X86Level(); n > 1 {
			p.Variant = "v" + strconv.Itoa(n)
		}
	case "arm":
		if n := f.ArmVersion(); n >= 5 {
			p.Variant = "v" + strconv.Itoa(n)
		}
	}
	return platform.Normalise(p), true
}

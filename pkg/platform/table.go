package platform

import "strings"

// Spellings holds an architecture's name in other vocabularies; a field is ""
// where that vocabulary has no such machine.
type Spellings struct {
	Deb        string // dpkg --print-architecture
	Uname      string // uname -m
	GNUTriplet string // config.guess without vendor; Debian's multiarch directory
	Rust       string // rustc --target
	APK        string // apk --print-arch
	RPM        string // rpm --eval %{_target_cpu}
	Go         string // GOARCH
}

// table holds the platforms that the project knows by name, in the order they
// are listed to people. A new one is a row here and one in package emulate.
// arm/v6 is Debian's armel because its armhf needs v7, and Alpine's armhf, which
// needs v6 only.
var table = []struct {
	os, arch, variant string
	names             Spellings
}{
	{"linux", "amd64", "", Spellings{"amd64", "x86_64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "x86_64", "x86_64", "amd64"}},
	{"linux", "amd64", "v2", Spellings{"amd64", "x86_64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "x86_64", "x86_64_v2", "amd64"}},
	{"linux", "amd64", "v3", Spellings{"amd64", "x86_64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "x86_64", "x86_64_v3", "amd64"}},
	{"linux", "amd64", "v4", Spellings{"amd64", "x86_64", "x86_64-linux-gnu", "x86_64-unknown-linux-gnu", "x86_64", "x86_64_v4", "amd64"}},
	{"linux", "arm64", "", Spellings{"arm64", "aarch64", "aarch64-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64", "aarch64", "arm64"}},
	{"linux", "arm", "v7", Spellings{"armhf", "armv7l", "arm-linux-gnueabihf", "armv7-unknown-linux-gnueabihf", "armv7", "armv7hl", "arm"}},
	{"linux", "arm", "v6", Spellings{"armel", "armv6l", "arm-linux-gnueabi", "arm-unknown-linux-gnueabihf", "armhf", "armv6hl", "arm"}},
	{"linux", "arm", "v5", Spellings{"armel", "armv5tel", "arm-linux-gnueabi", "armv5te-unknown-linux-gnueabi", "", "armv5tel", "arm"}},
	{"linux", "386", "", Spellings{"i386", "i686", "i386-linux-gnu", "i686-unknown-linux-gnu", "x86", "i686", "386"}},
	{"linux", "riscv64", "", Spellings{"riscv64", "riscv64", "riscv64-linux-gnu", "riscv64gc-unknown-linux-gnu", "riscv64", "riscv64", "riscv64"}},
	{"linux", "ppc64le", "", Spellings{"ppc64el", "ppc64le", "powerpc64le-linux-gnu", "powerpc64le-unknown-linux-gnu", "ppc64le", "ppc64le", "ppc64le"}},
	{"linux", "s390x", "", Spellings{"s390x", "s390x", "s390x-linux-gnu", "s390x-unknown-linux-gnu", "s390x", "s390x", "s390x"}},
	{"linux", "mips64le", "", Spellings{"mips64el", "mips64", "mips64el-linux-gnuabi64", "mips64el-unknown-linux-gnuabi64", "", "mips64el", "mips64le"}},
	{"linux", "mips64", "", Spellings{"mips64", "mips64", "mips64-linux-gnuabi64", "mips64-unknown-linux-gnuabi64", "mips64", "mips64", "mips64"}},
	{"linux", "mipsle", "", Spellings{"mipsel", "mips", "mipsel-linux-gnu", "mipsel-unknown-linux-gnu", "", "mipsel", "mipsle"}},
	{"linux", "loong64", "", Spellings{"loong64", "loongarch64", "loongarch64-linux-gnu", "loongarch64-unknown-linux-gnu", "loongarch64", "loongarch64", "loong64"}},
	{"windows", "amd64", "", Spellings{"", "x86_64", "x86_64-w64-mingw32", "x86_64-pc-windows-msvc", "", "", "amd64"}},
	{"windows", "arm64", "", Spellings{"", "aarch64", "aarch64-w64-mingw32", "aarch64-pc-windows-msvc", "", "", "arm64"}},
	{"darwin", "amd64", "", Spellings{"", "x86_64", "x86_64-apple-darwin", "x86_64-apple-darwin", "", "", "amd64"}},
	{"darwin", "arm64", "", Spellings{"", "arm64", "aarch64-apple-darwin", "aarch64-apple-darwin", "", "", "arm64"}},
}

// Known lists the platforms of the table in table.go.
func Known() []Platform {
	out := make([]Platform, len(table))
	for i, row := range table {
		out[i] = Platform{OS: row.os, Arch: row.arch, Variant: row.variant}
	}
	return out
}

// Spellings returns the other names of p's architecture. A variant that is not
// in the table has those of the highest one below it, or of the plain
// architecture; only Go is set for an architecture that is not in the table.
func (p Platform) Spellings() Spellings {
	for _, candidate := range vector(p) {
		for _, row := range table {
			if row.os == candidate.OS && row.arch == p.Arch && row.arch == candidate.Arch && row.variant == candidate.Variant {
				return row.names
			}
		}
	}
	for _, row := range table {
		if row.os == p.OS && row.arch == p.Arch {
			return row.names
		}
	}
	return Spellings{Go: p.Arch}
}

// archAliases maps other spellings of an architecture to Go's. The first group is
// containerd's; the others are what uname, dpkg, rpm, apk and LLVM print.
var archAliases = map[string]struct{ arch, variant string }{
	"i386":   {"386", ""},
	"x86_64": {"amd64", ""}, "x86-64": {"amd64", ""},
	"aarch64": {"arm64", ""},
	"armhf":   {"arm", "v7"},
	"armel":   {"arm", "v6"},

	"i486": {"386", ""}, "i586": {"386", ""}, "i686": {"386", ""}, "x86": {"386", ""},
	"x86_64_v2": {"amd64", "v2"}, "x86_64_v3": {"amd64", "v3"}, "x86_64_v4": {"amd64", "v4"},
	"x64":    {"amd64", ""},
	"armv5l": {"arm", "v5"}, "armv5tel": {"arm", "v5"}, "armv5tejl": {"arm", "v5"},
	"armv6l": {"arm", "v6"}, "armv6hl": {"arm", "v6"},
	"armv7": {"arm", "v7"}, "armv7l": {"arm", "v7"}, "armv7hl": {"arm", "v7"}, "armv7hnl": {"arm", "v7"},
	"armv8l":  {"arm", "v8"},
	"ppc64el": {"ppc64le", ""}, "powerpc64le": {"ppc64le", ""},
	"mips64el": {"mips64le", ""}, "mipsel": {"mipsle", ""},
	"loongarch64": {"loong64", ""},
}

// knownOS and knownArch are Go's and containerd's names: what an image may claim.
var (
	knownOS = words("aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 " +
		"solaris wasi wasip1 windows zos")
	knownArch = words("386 amd64 amd64p32 arm arm64 arm64be armbe loong64 mips mips64 mips64le mips64p32 mips64p32le " +
		"mipsle ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm")
)

// variants are the ones that exist, where getting one wrong is easy. Every other
// architecture takes any variant.
var variants = map[string]map[string]bool{
	"amd64": words("v1 v2 v3 v4"),
	"arm":   words("v5 v6 v7 v8"),
	"arm64": words("v8 v8.1 v8.2 v8.3 v8.4 v8.5 v8.6 v8.7 v8.8 v8.9 v9 v9.1 v9.2 v9.3 v9.4 v9.5 v9.6 v9.7"),
}

func words(s string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		set[w] = true
	}
	return set
}

// canonicalOS is Go's name of an operating system.
func canonicalOS(os string) string {
	os = strings.ToLower(os)
	if os == "macos" {
		return "darwin"
	}
	return os
}

// canonicalArch is Go's name of an architecture and the variant as a Platform
// holds it. A spelling that says the variant wins over the variant given.
func canonicalArch(arch, variant string) (string, string) {
	arch, variant = strings.ToLower(arch), strings.ToLower(variant)
	if a, ok := archAliases[arch]; ok {
		arch = a.arch
		if a.variant != "" || arch == "386" {
			variant = a.variant
		}
	}
	switch arch {
	case "amd64", "arm", "arm64":
		if variant != "" && variant[0] >= '0' && variant[0] <= '9' {
			variant = "v" + variant
		}
		variant = strings.TrimSuffix(variant, ".0")
	}
	switch arch + "/" + variant {
	case "amd64/v1", "arm64/v8":
		variant = ""
	case "arm/":
		variant = "v7"
	}
	return arch, variant
}

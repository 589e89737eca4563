package emulate

import (
	"strconv"
	"strings"
)

// release is a version's major and minor number; the zero one stands for any.
type release [2]int

func (r release) before(o release) bool { return r[0] < o[0] || r[0] == o[0] && r[1] < o[1] }

// knownBad are versions of qemu-user that crash sound programs, some on some kernels only, as their users found out.
var knownBad = []struct {
	below  release // of qemu: the first that is good
	arch   string  // "" is any
	kernel release // the first that shows it; zero: all do
	why    string
}{
	// https://bugs.debian.org/988174, https://github.com/docker/buildx/issues/542
	{below: release{6, 0}, arch: "arm64", why: "qemu before 6.0 crashes statically linked programs of arm64 (ldconfig): take a newer one"},
	// https://bugs.debian.org/1087822, https://github.com/tonistiigi/binfmt/issues/215: the kernel's commit 44c76825d6ee is in
	// 6.9, and was taken into older stable ones. Debian mended its 7.2.
	{
		below: release{7, 2}, kernel: release{6, 9},
		why: "qemu before 7.2 crashes at random where the kernel spreads a program's memory more widely (6.9 and later): take qemu 8.1 or later, or Debian's 7.2",
	},
}

// warning is what is known against an emulator of this version on this kernel ("6.9.0-1-amd64"); "" is nothing.
func warning(arch, version, kernel string) string {
	have, ok := releaseOf(version)
	if !ok {
		return ""
	}
	on, _ := releaseOf(kernel)
	for _, k := range knownBad {
		if (k.arch == "" || k.arch == arch) && have.before(k.below) && (k.kernel == release{} || !on.before(k.kernel)) {
			return k.why
		}
	}
	return ""
}

// releaseOf reads the first two numbers of a version.
func releaseOf(s string) (release, bool) {
	major, rest, _ := strings.Cut(s, ".")
	n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if n >= 0 {
		rest = rest[:n]
	}
	a, err := strconv.Atoi(major)
	if err != nil {
		return release{}, false
	}
	b, _ := strconv.Atoi(rest) // "" is 0
	return release{a, b}, true
}

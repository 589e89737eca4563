package emulate

import (
	"strconv"
	"strings"
)

// knownBad are versions of qemu-user that crash sound programs, as their users found out.
var knownBad = []struct {
	below [2]int // major, minor
	arch  string
	why   string
}{
	// https://bugs.debian.org/988174, https://github.com/docker/buildx/issues/542
	{below: [2]int{6, 0}, arch: "arm64", why: "qemu before 6.0 crashes statically linked programs of arm64 (ldconfig): take a newer one"},
}

// warning is what is known against an emulator of this version; "" is nothing.
func warning(arch, version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(major)
	if err != nil {
		return ""
	}
	b, _ := strconv.Atoi(minor) // "" is 0
	for _, k := range knownBad {
		if k.arch == arch && (a < k.below[0] || a == k.below[0] && b < k.below[1]) {
			return k.why
		}
	}
	return ""
}

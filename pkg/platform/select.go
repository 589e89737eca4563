package platform

import (
	"strconv"
	"strings"
)

// Select returns the index of the best of have for a client that wants want, as
// containerd chooses (exact variant first, then the lower ones it can run); ok is
// false when none fits. Of equals the first wins, as the image specification says.
//
// As in containerd, an amd64 client falls back to 386 and an arm64 client to arm:
// who needs the very architecture uses [SelectArch].
//
// A client that says its Windows version takes what that version can run
// (learn.microsoft.com, "Windows container version compatibility"), its own build
// before others and the latest revision of that.
func Select(want Platform, have []Platform) (i int, ok bool) {
	return pick(vector(Normalise(want)), have)
}

// SelectArch is Select without the fall back to another architecture.
func SelectArch(want Platform, have []Platform) (i int, ok bool) {
	want = Normalise(want)
	candidates := vector(want)
	for i, c := range candidates {
		if c.Arch != want.Arch {
			candidates = candidates[:i]
			break
		}
	}
	return pick(candidates, have)
}

func pick(candidates, have []Platform) (i int, ok bool) {
	for _, c := range candidates {
		best, bestRank := -1, 0
		for i, h := range have {
			if rank := rank(c, Normalise(h)); rank > bestRank {
				best, bestRank = i, rank
			}
		}
		if best >= 0 {
			return best, true
		}
	}
	return 0, false
}

// vector lists what a client of platform p can run, best first, without regard
// to versions of the operating system.
func vector(p Platform) []Platform {
	out := []Platform{p}
	add := func(arch, variant string) {
		p.Arch, p.Variant = arch, variant
		out = append(out, p)
	}
	switch p.Arch {
	case "amd64":
		for n := level(p.Variant) - 1; n > 1; n-- {
			add("amd64", "v"+strconv.Itoa(n))
		}
		if p.Variant != "" {
			add("amd64", "")
		}
		add("386", "")
	case "arm":
		for n := level(p.Variant) - 1; n >= 5; n-- {
			add("arm", "v"+strconv.Itoa(n))
		}
	case "arm64":
		for _, v := range arm64Below(p.Variant) {
			add("arm64", v)
		}
		for n := 8; n >= 5; n-- {
			add("arm", "v"+strconv.Itoa(n))
		}
	}
	return out
}

// level is the number of a variant such as "v7"; 0 when it is none.
func level(variant string) int {
	if len(variant) == 2 && variant[0] == 'v' && variant[1] >= '0' && variant[1] <= '9' {
		return int(variant[1] - '0')
	}
	return 0
}

// arm64Below lists the variants of arm64 that a machine of this variant also
// runs: the lower ones of its version and, as Arm says, v9.n is a v8.(n+5).
func arm64Below(variant string) []string {
	if variant == "" {
		return nil
	}
	major, minorText, _ := strings.Cut(strings.TrimPrefix(variant, "v"), ".")
	minor, _ := strconv.Atoi(minorText)
	var out []string
	if major == "9" && minor <= 9 {
		for ; minor > 0; minor-- {
			out = append(out, arm64Name(9, minor-1))
		}
		minor, _ = strconv.Atoi(minorText)
		minor = min(minor+5, 9) + 1
		major = "8"
	}
	if major == "8" && minor <= 10 {
		for ; minor > 0; minor-- {
			out = append(out, arm64Name(8, minor-1))
		}
		return out
	}
	return append(out, "")
}

func arm64Name(major, minor int) string {
	switch {
	case major == 8 && minor == 0:
		return ""
	case minor == 0:
		return "v" + strconv.Itoa(major)
	}
	return "v" + strconv.Itoa(major) + "." + strconv.Itoa(minor)
}

// rank says how well an image for h serves the candidate c: 0 not at all.
func rank(c, h Platform) int {
	if c.OS != h.OS || c.Arch != h.Arch || c.Variant != h.Variant {
		return 0
	}
	if c.OS == "windows" && c.OSVersion != "" {
		return rankWindows(c.OSVersion, h.OSVersion)
	}
	if c.OSVersion != "" && c.OSVersion == h.OSVersion || c.OSFeatures != "" && c.OSFeatures == h.OSFeatures {
		return 2
	}
	return 1
}

// ltsc2022 is the build since which Windows runs containers of older builds, down to this one.
const ltsc2022 = 20348

// rankWindows compares versions MAJOR.MINOR.BUILD.REVISION. An image that does
// not say its version runs anywhere (host process containers).
func rankWindows(client, image string) int {
	if image == "" {
		return 1
	}
	c, i := windowsVersion(client), windowsVersion(image)
	if len(c) < 3 || len(i) < 3 { // a client that says less than the build: a prefix
		if image == client || strings.HasPrefix(image, client+".") {
			return 2
		}
		return 0
	}
	if c[0] != i[0] || c[1] != i[1] {
		return 0
	}
	revision := 0
	if len(i) > 3 {
		revision = min(i[3], 1<<20)
	}
	switch {
	case c[2] == i[2]:
		return 1<<30 + revision
	case c[2] >= ltsc2022 && i[2] >= ltsc2022 && i[2] < c[2]:
		return 2 + min(i[2], 1<<20)
	}
	return 0
}

// windowsVersion splits a version into numbers, up to the first part that is none.
func windowsVersion(s string) []int {
	var out []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			break
		}
		out = append(out, n)
	}
	return out
}

package platform

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// spelled are parts that containerd knows, in every spelling.
var spelled = struct{ os, arch, variant []string }{
	os: []string{"linux", "Linux", "windows", "darwin", "macos", "freebsd"},
	arch: []string{
		"amd64", "x86_64", "x86-64", "AMD64", "386", "i386", "arm", "armhf", "armel", "arm64", "aarch64", "riscv64", "ppc64le",
		"s390x", "mips64le", "mips64", "mipsle", "loong64", "wasm",
	},
	variant: []string{"", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "5", "6", "7", "8", "V7", "v9"},
}

// ours says where we differ from containerd 0.2.1 on purpose: digits without "v"
// (it reads them for arm only, and 8 for arm64), and fall backs of arm64/v9.
func ours(arch, variant string) bool {
	p := Normalise(Platform{OS: "linux", Arch: arch, Variant: variant})
	if p.Arch == "arm64" && p.Variant != "" {
		return true
	}
	digit := variant != "" && variant[0] >= '0' && variant[0] <= '9'
	return digit && (p.Arch == "amd64" || p.Arch == "arm" && !slices.Contains([]string{"5", "6", "7", "8"}, variant))
}

func TestNormaliseAsContainerd(t *testing.T) {
	for _, os := range spelled.os {
		for _, arch := range spelled.arch {
			for _, variant := range spelled.variant {
				if ours(arch, variant) {
					continue
				}
				in := ocispec.Platform{OS: os, Architecture: arch, Variant: variant}
				got, err := FromOCI(in)
				require.NoError(t, err)
				assert.Equal(t, platforms.Normalize(in), got.OCI(), "%s/%s/%s", os, arch, variant)
			}
		}
	}
}

func TestParseAsContainerd(t *testing.T) {
	for _, os := range append(spelled.os, "windows(10.0.17763)", "linux()", "darwin(24.1)") {
		for _, arch := range spelled.arch {
			for _, variant := range spelled.variant {
				s := os + "/" + arch
				if variant != "" {
					s += "/" + variant
				}
				got, err := Parse(s)
				if err != nil || ours(arch, variant) {
					continue // an amd64/v7, which containerd lets through
				}
				want, err := platforms.Parse(s)
				require.NoError(t, err)
				assert.Equal(t, platforms.Normalize(want), got.OCI(), s)
			}
		}
	}
}

func TestSelectAsContainerd(t *testing.T) {
	var all []ocispec.Platform
	for _, os := range []string{"linux", "windows"} {
		for _, arch := range spelled.arch {
			for _, variant := range spelled.variant {
				if !ours(arch, variant) {
					all = append(all, ocispec.Platform{OS: os, Architecture: arch, Variant: variant})
				}
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		index := make([]ocispec.Platform, 1+random.IntN(12))
		have := make([]Platform, len(index))
		for i := range index {
			var err error
			index[i] = all[random.IntN(len(all))]
			have[i], err = FromOCI(index[i])
			require.NoError(t, err)
		}
		want := all[random.IntN(len(all))]
		client, err := FromOCI(want)
		require.NoError(t, err)
		got, ok := Select(client, have)

		only := platforms.Only(want)
		order := make([]int, 0, len(index))
		for i, p := range index {
			if only.Match(p) {
				order = append(order, i)
			}
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case only.Less(index[a], index[b]):
				return -1
			case only.Less(index[b], index[a]):
				return 1
			}
			return 0
		})
		label := fmt.Sprintf("%v of %v", client, have)
		require.Equal(t, len(order) > 0, ok, label)
		if ok {
			require.Equal(t, index[order[0]], index[got], label)
		}
	}
}

func TestSelect(t *testing.T) {
	for name, tc := range map[string]struct {
		want     string
		have     string
		pick     string // "": none
		sameArch string
	}{
		"exact":               {"linux/arm64", "linux/amd64 linux/arm64", "linux/arm64", "linux/arm64"},
		"first of equals":     {"linux/arm/v7", "linux/arm/v6 linux/arm/v5", "linux/arm/v6", "linux/arm/v6"},
		"lower variant":       {"linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v2", "linux/amd64/v2"},
		"not a higher one":    {"linux/amd64", "linux/amd64/v2 linux/arm64", "", ""},
		"v6 not v7":           {"linux/arm/v6", "linux/arm/v7 linux/arm/v5", "linux/arm/v5", "linux/arm/v5"},
		"arm64 runs arm":      {"linux/arm64", "linux/arm/v6 linux/arm/v7", "linux/arm/v7", ""},
		"amd64 runs 386":      {"linux/amd64", "linux/386", "linux/386", ""},
		"v9 runs plain":       {"linux/arm64/v9", "linux/arm64 linux/arm/v8", "linux/arm64", "linux/arm64"},
		"v9.2 runs v8.6":      {"linux/arm64/v9.2", "linux/arm64 linux/arm64/v8.6 linux/arm64/v8.9", "linux/arm64/v8.6", "linux/arm64/v8.6"},
		"other system":        {"linux/amd64", "windows/amd64 darwin/amd64", "", ""},
		"attestation":         {"linux/amd64", "", "", ""},
		"free variant":        {"linux/ppc64le/power9", "linux/ppc64le", "", ""},
		"windows build":       {"windows(10.0.17763.5)/amd64", "windows(10.0.20348.1)/amd64 windows(10.0.17763.1)/amd64 windows(10.0.17763.9)/amd64", "windows(10.0.17763.9)/amd64", "windows(10.0.17763.9)/amd64"},
		"windows newer":       {"windows(10.0.26100)/amd64", "windows(10.0.17763.9)/amd64 windows(10.0.20348.1)/amd64", "windows(10.0.20348.1)/amd64", "windows(10.0.20348.1)/amd64"},
		"windows too new":     {"windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64", "", ""},
		"windows any":         {"windows(10.0.17763)/amd64", "windows/amd64", "windows/amd64", "windows/amd64"},
		"windows prefix":      {"windows(10.0)/amd64", "windows(11.0.1)/amd64 windows(10.0.17763.9)/amd64", "windows(10.0.17763.9)/amd64", "windows(10.0.17763.9)/amd64"},
		"windows not asked":   {"windows/amd64", "windows(10.0.20348.1)/amd64 windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", "windows(10.0.20348.1)/amd64"},
		"version, not needed": {"linux(2)/amd64", "linux(1)/amd64 linux(2)/amd64", "linux(2)/amd64", "linux(2)/amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := Parse(tc.want)
			require.NoError(t, err)
			var have []Platform
			if tc.have != "" {
				for _, s := range strings.Fields(tc.have) {
					p, err := Parse(s)
					require.NoError(t, err)
					have = append(have, p)
				}
			}
			have = append(have, Platform{OS: "unknown", Arch: "unknown"})
			picked := func(i int, ok bool) string {
				if !ok {
					return ""
				}
				return have[i].String()
			}
			assert.Equal(t, tc.pick, picked(Select(want, have)))
			assert.Equal(t, tc.sameArch, picked(SelectArch(want, have)))
		})
	}
}

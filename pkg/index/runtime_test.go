package index

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// TestPick compares predictions with what the real runtimes took: testdata/choices.json is written by internal/e2e, which
// lets Debian's dockerd (20.10), containerd (1.6) and skopeo (1.9), and the library of crane, pull these indexes.
func TestPick(t *testing.T) {
	data, err := os.ReadFile("testdata/choices.json")
	require.NoError(t, err)
	var cases map[string]struct {
		Entries []string
		Choices map[string]map[Runtime]int
	}
	require.NoError(t, json.Unmarshal(data, &cases))
	for name, tc := range cases {
		var manifests []ocispec.Descriptor
		for i, e := range tc.Entries {
			d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(string(rune('a' + i))), Size: 1}
			if e == "+" {
				e = "unknown/unknown"
			}
			if !strings.HasPrefix(e, "-") {
				d.Platform = written(e)
			}
			manifests = append(manifests, d)
		}
		for host, choices := range tc.Choices {
			machine, err := platform.Parse(host)
			require.NoError(t, err)
			require.Len(t, choices, 4)
			for rt, want := range choices {
				got := Pick(rt, machine, manifests)
				if got.IfConfig {
					config, err := platform.FromOCI(*written(strings.TrimPrefix(tc.Entries[got.At], "-")))
					require.NoError(t, err)
					if _, runs := platform.Select(machine, []platform.Platform{config}); !runs {
						got.At = -1
					}
				}
				assert.Equal(t, want, got.At, "%s: %s on %s: %s", name, rt, host, got.Why)
				assert.NotEmpty(t, got.Why)
			}
		}
	}
}

// written is a platform as it is written, without any understanding.
func written(s string) *ocispec.Platform {
	parts := append(strings.Split(s, "/"), "", "")
	return &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

func TestParseRuntime(t *testing.T) {
	for in, want := range map[string]Runtime{"skopeo": Podman, "ctr": Containerd, "ko": Crane, "docker": DockerEngine, "docker-20.10": DockerEngine20} {
		got, err := ParseRuntime(in)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := ParseRuntime("lxc")
	require.Error(t, err)
}

func TestLint(t *testing.T) {
	image := func(n int, p string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(string(rune('a' + n))), Size: 1, Platform: written(p)}
	}
	bare := image(1, "linux/amd64")
	bare.Platform = nil
	windows := image(2, "windows/amd64")
	windows.Platform.OSVersion = "10.0.17763.1"
	for name, tc := range map[string]struct {
		in   []ocispec.Descriptor
		want []Rule
	}{
		"clean":                      {in: []ocispec.Descriptor{image(1, "linux/amd64"), image(2, "linux/arm64/v8"), image(3, "linux/arm/v6"), image(4, "linux/arm/v7"), attestation(digestA, image(1, "").Digest)}},
		"empty":                      {},
		"B11 duplicates":             {in: []ocispec.Descriptor{image(1, "linux/amd64"), image(2, "linux/amd64")}, want: []Rule{RuleDuplicate}},
		"two spellings of a machine": {in: []ocispec.Descriptor{image(1, "linux/arm64"), image(2, "linux/arm64/v8")}, want: []Rule{RuleDuplicate, RuleDisagree}},
		"the order of arm":           {in: []ocispec.Descriptor{image(0, "linux/arm64"), image(1, "linux/arm/v7"), image(2, "linux/arm/v6")}, want: []Rule{RuleOrder}},
		"arm without a variant":      {in: []ocispec.Descriptor{image(0, "linux/arm64"), image(1, "linux/arm")}, want: []Rule{RuleVariant, RuleDisagree}},
		"B12 no platform":            {in: []ocispec.Descriptor{bare}, want: []Rule{RuleNoPlatform}},
		"B13 attestation first":      {in: []ocispec.Descriptor{attestation(digestA, image(1, "").Digest), image(1, "linux/amd64")}, want: []Rule{RuleUnknown}},
		"arm64 gets arm":             {in: []ocispec.Descriptor{image(0, "linux/amd64"), image(1, "linux/arm/v7")}, want: []Rule{RuleFallThrough}},
		"amd64 gets 386":             {in: []ocispec.Descriptor{image(0, "linux/386")}, want: []Rule{RuleFallThrough}},
		"amd64/v3 alone":             {in: []ocispec.Descriptor{image(0, "linux/amd64/v3")}, want: []Rule{RuleUnreachable}},
		"amd64/v3 beside amd64":      {in: []ocispec.Descriptor{image(0, "linux/amd64"), image(1, "linux/amd64/v3")}},
		"amd64/v3 before amd64":      {in: []ocispec.Descriptor{image(0, "linux/amd64/v3"), image(1, "linux/amd64")}, want: []Rule{RuleOrder, RuleDisagree}},
		"windows":                    {in: []ocispec.Descriptor{image(0, "windows/amd64")}, want: []Rule{RuleOSVersion}},
		"windows of two versions":    {in: []ocispec.Descriptor{image(0, "linux/amd64"), windows}},
		"B13 orphan":                 {in: []ocispec.Descriptor{image(0, "linux/amd64"), attestation(digestA, digestB)}, want: []Rule{RuleOrphan}},
		"odd names":                  {in: []ocispec.Descriptor{image(0, "linux/x86_64")}, want: []Rule{RuleDisagree, RuleSpelling}},
		"an artifact":                {in: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: 1, ArtifactType: "a/b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Rule
			for _, f := range Lint(tc.in) {
				got = append(got, f.Rule)
				assert.NotEmpty(t, f.Text)
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

func FuzzPick(f *testing.F) {
	f.Add("linux", "arm", "v7", "linux", "arm64", "")
	f.Add("", "", "", "unknown", "unknown", "")
	f.Fuzz(func(t *testing.T, os1, arch1, v1, os2, arch2, v2 string) {
		ms := []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageManifest, Digest: digestA, Size: 1, Platform: &ocispec.Platform{OS: os1, Architecture: arch1, Variant: v1}},
			{MediaType: ocispec.MediaTypeImageManifest, Digest: digestB, Size: 1, Platform: &ocispec.Platform{OS: os2, Architecture: arch2, Variant: v2}},
			{MediaType: ocispec.MediaTypeImageManifest, Digest: digestC, Size: 1},
		}
		Lint(ms)
		for _, host := range platform.Known() {
			for _, rt := range append(Runtimes(), DockerEngine20) {
				require.Less(t, Pick(rt, host, ms).At, len(ms))
			}
		}
	})
}

package verify_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// realTree makes a tar of a Debian root file system with what is likely to be mistaken for something wrong: compilers, one of them for
// another machine, Python, firmware, emulators. Packages are extracted and not configured, so that no emulator is needed.
func realTree(t *testing.T, arch, cross string) string {
	t.Helper()
	if dir := os.Getenv("MANIFESTCTL_REAL_DIR"); dir != "" { // made before
		return filepath.Join(dir, arch+".tar")
	}
	file := filepath.Join(t.TempDir(), arch+".tar")
	cmd := exec.CommandContext(t.Context(), "mmdebstrap", "--quiet", "--variant=extract", "--architectures="+arch, "--include=?essential",
		"--include=apt,usr-is-merged,build-essential,python3,python3-pip,"+cross+",firmware-linux-free,qemu-user-static",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--skip=cleanup/apt,check/qemu", "--format=tar", "bookworm", file)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

// TestRealTrees judges whole Debian systems. Every finding stands in the table of docs/verify.md with its reason, and none is an error.
func TestRealTrees(t *testing.T) {
	if os.Getenv("MANIFESTCTL_REAL") == "" {
		t.Skip("downloads 400 MB and takes minutes: make test-real")
	}
	for arch, tc := range map[string]struct {
		cross string
		want  []string
	}{
		"amd64": {"gcc-aarch64-linux-gnu", []string{
			"warning foreign-program AArch64 below /usr/aarch64-linux-gnu/lib",
			"note foreign-object AArch64 below /usr/lib/gcc-cross/aarch64-linux-gnu/12",
		}},
		"arm64": {"gcc-x86-64-linux-gnu", []string{
			"warning foreign-program x86-64 below /usr/x86_64-linux-gnu/lib",
			"note foreign-object x86-64 below /usr/lib/gcc-cross/x86_64-linux-gnu/12",
		}},
	} {
		t.Run(arch, func(t *testing.T) {
			f, err := os.Open(realTree(t, arch, tc.cross))
			require.NoError(t, err)
			defer f.Close()
			toc, said, err := facts.Read(t.Context(), bufio.NewReaderSize(f, 1<<20), facts.Options{})
			require.NoError(t, err)
			require.Greater(t, len(said.Files), 1000)
			in := input("linux/"+arch, ocispec.ImageConfig{Cmd: []string{"bash"}}, verify.Layer{TOC: toc, Facts: said})
			list, err := verify.Judge(in)
			require.NoError(t, err)
			var got []string
			for _, x := range list {
				var dir, what string
				_, err := fmt.Sscanf(x.Text, "%d files below %s are %s", new(int), &dir, &what)
				require.NoError(t, err, x.Text)
				got = append(got, fmt.Sprintf("%s %s %s below %s", x.Level, x.Rule.ID, what[:len(what)-1], dir))
			}
			assert.Equal(t, tc.want, got)

			// The same tree as that of the other machine is found at once, and said once.
			other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[arch]
			list, err = verify.Judge(input("linux/"+other, ocispec.ImageConfig{Cmd: []string{"bash"}}, verify.Layer{TOC: toc, Facts: said}))
			require.NoError(t, err)
			require.Equal(t, 1, verify.Count(list, verify.Error))
			assert.Equal(t, verify.RuleBase, list[0].Rule)
			assert.Greater(t, list[0].Count, 300)
		})
	}
}

package parity_test

import (
	"bytes"
	"fmt"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/parity"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

func image(t *testing.T, p string, config ocispec.ImageConfig, entries ...testimage.Entry) verify.Input {
	t.Helper()
	toc, f, err := facts.Read(t.Context(), bytes.NewReader(testimage.Layer(entries...).Tar), facts.Options{})
	require.NoError(t, err)
	parsed, err := platform.Parse(p)
	require.NoError(t, err)
	return verify.Input{Platform: parsed, Config: ocispec.Image{Config: config}, Layers: []verify.Layer{{TOC: toc, Facts: f}}}
}

func dpkg(packages ...string) testimage.Entry {
	text := ""
	for i := 0; i < len(packages); i += 2 {
		text += fmt.Sprintf("Package: %s\nStatus: install ok installed\nVersion: %s\n\n", packages[i], packages[i+1])
	}
	return testimage.File("var/lib/dpkg/status", text)
}

func TestCompare(t *testing.T) {
	amd64 := image(t, "linux/amd64", ocispec.ImageConfig{Cmd: []string{"/usr/lib/x86_64-linux-gnu/app"}, Env: []string{"A=1", "TRIPLET=x86_64-linux-gnu"}},
		dpkg("libc6", "2.36-9", "curl", "7.88+b1", "amd64-microcode", "3"),
		testimage.Exec("usr/lib/x86_64-linux-gnu/app", testexe.Exec("amd64")), testimage.File("usr/share/same", "1"), testimage.File("usr/share/size", "1"),
		testimage.Exec("usr/bin/su", testexe.Exec("amd64")).Mode(0o4755), testimage.Symlink("lib64/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/app"))
	arm64 := image(t, "linux/arm64", ocispec.ImageConfig{Cmd: []string{"/usr/lib/aarch64-linux-gnu/app"}, Env: []string{"A=2", "TRIPLET=aarch64-linux-gnu"}, User: "1"},
		dpkg("libc6", "2.36-10", "curl", "7.88+b2"),
		testimage.Exec("usr/lib/aarch64-linux-gnu/app", testexe.Exec("arm64")+"more code"), testimage.File("usr/share/same", "1"), testimage.File("usr/share/size", "22"),
		testimage.Exec("usr/bin/su", testexe.Exec("arm64")), testimage.File("usr/share/only", "x"), testimage.Symlink("lib64/ld-linux-aarch64.so.1", "/usr/lib/aarch64-linux-gnu/app"))
	r, err := parity.Compare([]verify.Input{amd64, arm64})
	require.NoError(t, err)
	var got []string
	for _, d := range r.Differences {
		got = append(got, fmt.Sprintf("%s %s %q", d.Area, d.Name, d.Values))
	}
	assert.Equal(t, []string{
		`packages amd64-microcode ["3" ""]`, `packages libc6 ["2.36-9" "2.36-10"]`,
		`config env A ["1" "2"]`, `config user ["" "1"]`,
		`modes /usr/bin/su ["4755 0:0" "0755 0:0"]`,
		`files /usr/share/only ["" "file"]`,
		`sizes /usr/share/size ["1" "2"]`,
	}, got)
	assert.Equal(t, 3, r.Platforms[0].Packages)
	assert.Equal(t, 2, r.Count([]parity.Area{parity.Packages}))
	same, err := parity.Compare([]verify.Input{arm64, arm64})
	require.NoError(t, err)
	assert.Empty(t, same.Differences)
}

func TestParseAreas(t *testing.T) {
	all, err := parity.ParseAreas([]string{"all"})
	require.NoError(t, err)
	assert.Equal(t, parity.Areas(), all)
	_, err = parity.ParseAreas([]string{"packages", "weather"})
	assert.Error(t, err)
}

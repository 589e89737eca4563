package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDebian does what examples/debian/README.md says, as an ordinary user with subuid ranges: packages extracted by
// mmdebstrap become a base image for two architectures, configured under our executor; apt-get installs curl on both.
func TestDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes long: apt and dpkg under qemu")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the base is made for amd64 and arm64 on amd64")
	}
	w := ordinary(t, "ranges")
	registry := debianRegistry(t)

	base := w.copyTree(t, "../../examples/debian/base", "base")
	for _, arch := range []string{"amd64", "arm64"} {
		require.NoError(t, os.Link(debianTar(t, arch), filepath.Join(base, "rootfs-"+arch+".tar")))
	}
	r := ok(t, w.command(nil, "build", "--progress", "plain", "-t", registry+"/debian:bookworm", "--push", base))
	t.Logf("base: %s", lastLines(r.stderr, 5))

	tree := w.copyTree(t, "../../examples/debian", "curl")
	r = ok(t, w.command(nil, "build", "--progress", "plain", "--build-arg", "BASE="+registry+"/debian:bookworm",
		"-t", registry+"/curl:latest", "--push", tree))
	t.Logf("curl: %s", lastLines(r.stderr, 5))

	// No false alarm: nothing at all is said of a whole Debian system with curl, for both machines.
	r = ok(t, w.command(nil, "verify", "--level", "note", registry+"/curl:latest"))
	assert.NotContains(t, r.stdout, "note:")
	assert.NotContains(t, r.stdout, "warning:")
	r = ok(t, w.command(nil, "parity", registry+"/curl:latest"))
	assert.Regexp(t, `(?m)^linux/arm64 +\d+ +\S+ MB +[1-9]\d+ `, r.stdout)

	for platform, machine := range map[string]string{"linux/amd64": "x86_64", "linux/arm64": "aarch64"} {
		dir := w.dir(t, "check")
		out := filepath.Join(w.home, "curl-"+machine)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"),
			[]byte("version: 1\nplatforms: ["+platform+"]\nfrom: "+registry+"/curl:latest\nsteps: []\n"), 0o644))
		ok(t, w.command(nil, "build", "-o", "type=local,dest="+out, dir))
		got, err := os.ReadFile(filepath.Join(out, "etc/machine"))
		require.NoError(t, err)
		assert.Equal(t, machine+"\n", string(got))
		version, err := os.ReadFile(filepath.Join(out, "etc/curl-version"))
		require.NoError(t, err)
		assert.Contains(t, string(version), "curl 7.88.1 ("+machine)

		// Owners beyond root are those that dpkg gave, in the layers themselves.
		tar := filepath.Join(w.home, machine+".tar")
		ok(t, w.command(nil, "build", "-o", "type=tar,dest="+tar, dir))
		list := ok(t, w.other(nil, "tar", "--numeric-owner", "-tvf", tar))
		assert.Regexp(t, `(?m)^-rw-r----- 0/42 .* (\./)?etc/shadow$`, list.stdout)
		assert.Regexp(t, `(?m)^-r[ws]x?r-sr-x 0/42 .* (\./)?usr/bin/chage$`, list.stdout)
		assert.Regexp(t, `(?m)^drwx------ (100|42)/\d+ .* (\./)?var/cache/apt/archives/partial/$`, list.stdout)
	}
}

func lastLines(s string, n int) string {
	end := len(s)
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '\n' {
			if n--; n < 0 {
				return s[i+1 : end]
			}
		}
	}
	return s
}

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEmulateInstall: with no qemu in $PATH, emulators out of a Debian package, or of an image with tonistiigi/binfmt's or
// multiarch's layout, are what foreign steps run under.
func TestEmulateInstall(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the other platform is arm64 here")
	}
	w := ordinary(t, "single")
	qemu, err := os.ReadFile(tool(t, "qemu-aarch64-static"))
	require.NoError(t, err)
	put := func(name string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, qemu, 0o755))
	}
	images := w.dir(t, "images")
	put(filepath.Join(images, "qemu-aarch64"))
	for name, path := range map[string]string{"tonistiigi": "/usr/bin/qemu-aarch64", "multiarch": "/usr/bin/qemu-aarch64-static"} {
		spec := filepath.Join(images, name+".yaml")
		require.NoError(t, os.WriteFile(spec, []byte("version: 1\nplatforms: [linux/amd64]\nfrom: scratch\nsteps:\n  - files: [{path: "+path+", source: qemu-aarch64}]\n"), 0o644))
		ok(t, w.command(nil, "build", "-q", "-o", "type=docker,dest="+filepath.Join(images, name+".tar"), "-f", spec, images))
	}
	pkg := filepath.Join(images, "deb")
	put(filepath.Join(pkg, "usr/bin/qemu-aarch64-static"))
	require.NoError(t, os.Mkdir(filepath.Join(pkg, "DEBIAN"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(pkg, "DEBIAN/control"), []byte("Package: qemu-user-static\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n"), 0o644))
	must(t, exec.Command(tool(t, "dpkg-deb"), "-Zgzip", "-z1", "--build", pkg, filepath.Join(images, "qemu.deb")))
	w.own(t, images)

	dir := busybox(t, w, "installed", "  - run: uname -m > /m\n")
	for _, from := range []string{"tonistiigi.tar", "multiarch.tar", "qemu.deb"} {
		t.Run(from, func(t *testing.T) {
			env := append([]string{"PATH=/nowhere", "XDG_DATA_HOME=" + filepath.Join(w.home, "data-"+from)}, epoch...)
			build := []string{"build", "--no-cache", "--progress", "plain", "--platform", "linux/arm64", dir}
			assert.Equal(t, 8, do(t, w.command(env, build...)).code)
			r := ok(t, w.command(env, "emulate", "install", "--from", filepath.Join(images, from)))
			assert.Contains(t, r.stdout, filepath.Join("data-"+from, "manifestctl/emulators/qemu-aarch64-static"))
			assert.Contains(t, r.stdout, strings.Fields(qemuVersion(t))[2])
			ok(t, w.command(env, build...))
		})
	}
}

// qemuVersion is what qemu says: "qemu-aarch64 version 7.2.22 (...)".
func qemuVersion(t *testing.T) string {
	out, err := exec.Command(tool(t, "qemu-aarch64-static"), "--version").Output()
	require.NoError(t, err)
	return string(out)
}

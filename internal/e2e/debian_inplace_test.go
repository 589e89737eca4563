package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDebianInContainers configures Debian and installs packages by apt-get in containers that refuse namespaces: in a chroot, and in the
// root file system of the container, with and without capabilities for owners. The layers are those that the host's root makes. make e2e-long.
func TestDebianInContainers(t *testing.T) {
	if os.Getenv("MANIFESTCTL_LONG") == "" {
		t.Skip("minutes of apt and dpkg: MANIFESTCTL_LONG=1")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the base is made for amd64")
	}
	docker := dockerd(t)
	needs(t, "runc", "busybox", "qemu-aarch64-static")
	loadImage(t, docker)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Link(debianTar(t, "amd64"), filepath.Join(dir, "rootfs.tar")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(sameOwnersSpec("amd64", "small")), 0o644))

	const withoutCaps = "in place, without capabilities"
	w := root(t)
	want := digestOf(t, ok(t, w.command(epoch, "build", "--progress", "plain", "-o", "type=tar,dest="+filepath.Join(w.home, "want.tar"), dir)))
	tree := readTree(t, filepath.Join(w.home, "want.tar"))
	for name, c := range map[string]struct{ args, flags []string }{
		"a chroot":                       {},
		"in place, CRI-O's capabilities": {[]string{"--cap-drop", "MKNOD", "--cap-drop", "SYS_CHROOT", "--cap-drop", "NET_RAW", "--cap-drop", "AUDIT_WRITE"}, []string{"--executor", "inplace"}},
		withoutCaps:                      {[]string{"--cap-drop", "ALL"}, []string{"--executor", "inplace"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := t.TempDir()
			args := append([]string{"run", "--rm", "--network", "host", "-e", epoch[0], "-v", dir + ":/ctx:ro", "-v", store + ":/store"}, c.args...)
			args = append(args, "manifestctl", "/bin/manifestctl", "--root", "/store", "build", "--progress", "plain", "-o", "type=tar,dest=/store/got.tar")
			out, err := docker(append(append(args, c.flags...), "/ctx")...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			got := readTree(t, filepath.Join(store, "got.tar"))
			if name == withoutCaps { // CAP_SETFCAP is missing too, and iputils-ping knows what to do then
				const ping = "usr/bin/ping"
				assert.Regexp(t, "^0 4755 0:0 ", got[ping])
				assert.Contains(t, tree[ping], "security.capability")
				got[ping] = tree[ping]
			} else {
				assert.Contains(t, string(out), want)
			}
			assert.Empty(t, different(tree, got))
		})
	}
}

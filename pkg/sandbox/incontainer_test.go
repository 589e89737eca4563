//go:build linux

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mountsOfDocker = `731 698 0:44 / / rw,relatime master:266 - overlay overlay rw,lowerdir=/l
732 731 0:48 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
733 731 0:49 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
741 731 254:0 /var/lib/docker/containers/x/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
742 731 254:0 /var/lib/docker/containers/x/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw
743 731 254:0 /var/lib/my\040volume /a\040b rw,relatime - ext4 /dev/vda rw
`
	mountsOfDisk    = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n22 27 0:21 / /proc rw,relatime - proc proc rw\n"
	mountsOfSubvol  = "27 1 0:30 /graph/vfs/dir/x / rw,relatime - ext4 /dev/vda rw,discard\n22 27 0:21 / /proc rw,relatime - proc proc rw\n"
	cgroupOfPod     = "0::/kubepods.slice/kubepods-burstable.slice/x\n"
	cgroupOfMachine = "0::/init.scope\n"
)

// TestInContainer: a machine is not taken for a container, not even one whose disk was made of an image.
func TestInContainer(t *testing.T) {
	for name, tc := range map[string]struct {
		mounts, cgroup, file string
		is                   bool
	}{
		"docker":                      {mountsOfDocker, cgroupOfMachine, "", true},
		"a machine":                   {mountsOfDisk, cgroupOfMachine, "", false},
		"a machine made of an image":  {mountsOfDisk, cgroupOfMachine, "/.dockerenv", false},
		"a machine with a bound root": {mountsOfSubvol, cgroupOfMachine, "", false},
		"podman without mounts":       {mountsOfSubvol, cgroupOfMachine, "/run/.containerenv", true},
		"a pod":                       {mountsOfSubvol, cgroupOfPod, "", true},
		"nothing to be read":          {"", "", "/.dockerenv", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range map[string]string{"/proc/self/mountinfo": tc.mounts, "/proc/1/cgroup": tc.cgroup, tc.file: "x"} {
				if file == "" || text == "" {
					continue
				}
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
			}
			assert.Equal(t, tc.is, inContainer(root) != "", inContainer(root))
		})
	}
	got, err := readMounts(strings.NewReader(mountsOfDocker))
	require.NoError(t, err)
	assert.Equal(t, "/a b", got[5].point)
	_, err = readMounts(strings.NewReader("1 2 3\n"))
	require.Error(t, err)
}

// TestInPlaceIsAskedFor: it is in no list of what is tried.
func TestInPlaceIsAskedFor(t *testing.T) {
	plans, errs, err := choosePlans(Options{})
	require.NoError(t, err)
	for _, p := range plans {
		assert.NotEqual(t, ModeInPlace, p.mode)
	}
	assert.NotContains(t, errs, ModeInPlace)
}

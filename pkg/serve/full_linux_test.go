package serve_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// smallDisk mounts what a registry with a full disk lives on; the test program
// does so in namespaces of its own.
func smallDisk(dir, options string) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
}

// TestFull_F24_D01_D02 fills the disk under a registry.
func TestFull_F24_D01_D02(t *testing.T) {
	for name, options := range map[string]string{"no space": "size=512k", "no inodes": "size=16m,nr_inodes=60"} {
		for _, kind := range []string{"dir", "store"} {
			t.Run(name+" in a "+kind, func(t *testing.T) {
				self, err := os.Executable()
				require.NoError(t, err)
				cmd := exec.Command(self)
				cmd.Env = append(os.Environ(), childEnv+"="+kind+":"+t.TempDir(), diskEnv+"="+options)
				cmd.Stderr = os.Stderr
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
					UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
					GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
				}
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				if err := cmd.Start(); err != nil {
					t.Skipf("this machine has no user namespaces for us, so no small disk: %v", err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				line, err := bufio.NewReader(out).ReadString('\n')
				require.NoError(t, err, "the registry did not start")
				a := api{t, "http://" + strings.TrimSpace(line)}

				im := newImage(t, "arm64", 1000)
				a.putImage("app", "1", im)
				size := 300 << 10
				if name == "no inodes" {
					size = 10
				}
				status := 201
				for i := 0; status < 300 && i < 200; i++ {
					b := randomBytes(t, size)
					res := a.call("POST", "/v2/app/blobs/uploads/?digest="+digest.FromBytes(b).String(), b)
					if status = res.status; status != 201 {
						assert.Equal(t, 507, status, "%s", res.body)
						assert.Equal(t, 404, a.call("HEAD", "/v2/app/blobs/"+digest.FromBytes(b).String(), nil).status, "nothing of it is in view")
					}
				}
				assert.Equal(t, 507, status)
				assert.Equal(t, im.raw, a.call("GET", "/v2/app/manifests/1", nil).body, "what was there is there")
				assert.Equal(t, im.layer, a.call("GET", "/v2/app/blobs/"+describe(im.layer).Digest.String(), nil).body)
			})
		}
	}
}

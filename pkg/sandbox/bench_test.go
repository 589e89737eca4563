//go:build linux

package sandbox

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkStep is what a step costs beyond its process: `probe true` in a warm agent, with its layer.
func BenchmarkStep(b *testing.B) {
	box := newBox(b)
	for _, arch := range []string{runtime.GOARCH, "arm64"} {
		box.install(arch, "bin/probe-"+arch)
		for name, host := range map[string]bool{"none": false, "host": true} {
			b.Run(arch+"/network="+name, func(b *testing.B) {
				for b.Loop() {
					s := box.step("true")
					s.Args[0], s.HostNet, s.Diff = "/bin/probe-"+arch, host, io.Discard
					require.NoError(b, box.pool.Run(b.Context(), s))
				}
			})
		}
		b.Run(arch+"/bare", func(b *testing.B) {
			argv := []string{probe(b, arch), "true"}
			if arch != runtime.GOARCH {
				argv = append([]string{"qemu-aarch64-static"}, argv...)
			}
			for b.Loop() {
				cmd := exec.Command(argv[0], argv[1:]...)
				cmd.Env = os.Environ()
				require.NoError(b, cmd.Run())
			}
		})
	}
}

// BenchmarkAgent is what the first step pays for in addition.
func BenchmarkAgent(b *testing.B) {
	for b.Loop() {
		p, err := NewPool(b.Context(), Options{Mode: mode(b)})
		require.NoError(b, err)
		require.NoError(b, p.Close())
	}
}

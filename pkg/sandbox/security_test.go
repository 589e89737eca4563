//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// TestE13Capabilities: what root of a step may do, and what it can never get back.
func TestE13Capabilities(t *testing.T) {
	var want uint64
	for _, c := range stepCaps {
		want |= 1 << c
	}
	for _, c := range []int{unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_MODULE, unix.CAP_BPF} {
		require.Zero(t, want&(1<<c), "capability %d", c)
	}
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		set := fmt.Sprintf("%016x", want)
		assert.Equal(t, "CapInh:\t0000000000000000\nCapPrm:\t"+set+"\nCapEff:\t"+set+"\nCapBnd:\t"+set+"\nCapAmb:\t0000000000000000\n", b.ok("status", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
		s := b.step("status", "CapBnd", "CapAmb")
		s.Account = layer.Account{UID: 5, GID: 5}
		assert.Equal(t, "CapBnd:\t"+set+"\nCapAmb:\t0000000000000000\n", b.run(s).out)
	})
}

// TestMaskedPaths: every file of the lists that this machine has is hidden, or cannot be written.
func TestMaskedPaths(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		hidden := func(dir string, names []string) {
			for _, name := range names {
				path := filepath.Join(dir, name)
				info, err := os.Lstat(path)
				if err != nil {
					continue
				}
				verb := "cat"
				if info.IsDir() {
					verb = "ls"
				}
				r := b.run(b.step(verb, path))
				assert.Empty(t, r.out, path)
			}
		}
		hidden("/proc", hiddenProc)
		hidden("/sys", hiddenSys)
		for _, name := range readOnlyProc {
			path := filepath.Join("/proc", name)
			info, err := os.Lstat(path)
			if err != nil {
				continue
			}
			if info.IsDir() {
				path += "/new"
			}
			out := b.ok("create", path)
			assert.True(t, strings.Contains(out, "read-only") || strings.Contains(out, "no such file"), out)
			assert.NotContains(t, out, "opened")
		}
		assert.NotContains(t, b.ok("create", "/sys/new", "/sys/kernel/new"), "opened")
	})
}

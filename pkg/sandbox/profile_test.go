//go:build linux && amd64

package sandbox

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// TestE13Profile: what the profile denies fails for root of a step, and nothing else does.
func TestE13Profile(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		call := func(insecure bool, nr int, args ...string) result {
			s := b.step(append([]string{"call", itoa(nr)}, args...)...)
			s.Insecure = insecure
			return b.run(s)
		}
		for name, tc := range map[string]struct {
			nr       int
			a0, a1   string
			want     string
			insecure string // without the profile
		}{
			"key rings":           {unix.SYS_KEYCTL, "0", "-3", "operation not permitted", ""},
			"bpf":                 {unix.SYS_BPF, "999", "0", "operation not permitted", "invalid argument|operation not permitted"},
			"performance events":  {unix.SYS_PERF_EVENT_OPEN, "0", "0", "operation not permitted", "bad address|permission denied|operation not permitted"},
			"page faults":         {unix.SYS_USERFAULTFD, "0x7fffffff", "0", "operation not permitted", "invalid argument|operation not permitted"},
			"io_uring":            {unix.SYS_IO_URING_SETUP, "0", "0", "operation not permitted|function not implemented", "bad address|invalid argument|operation not permitted|function not implemented"},
			"handles":             {unix.SYS_OPEN_BY_HANDLE_AT, "-1", "0", "operation not permitted", "bad|operation not permitted"},
			"the kernel's log":    {unix.SYS_SYSLOG, "3", "0", "operation not permitted", ".*"},
			"the machine's host":  {unix.SYS_SOCKET, strconv.Itoa(unix.AF_VSOCK), "1", "address family not supported by protocol", ".*"},
			"the kernel's crypto": {unix.SYS_SOCKET, strconv.Itoa(unix.AF_ALG), "5", "address family not supported by protocol", ".*"},
			"a unix socket":       {unix.SYS_SOCKET, strconv.Itoa(unix.AF_UNIX), "1", "", ""},
			"typing":              {unix.SYS_IOCTL, "0", "0x5412", "operation not permitted", "inappropriate ioctl"},
			"another ioctl":       {unix.SYS_IOCTL, "0", "0x5413", "inappropriate ioctl", "inappropriate ioctl"},
			"x32":                 {0x40000000 + unix.SYS_GETPID, "0", "0", "function not implemented", "function not implemented|^$"},
		} {
			t.Run(name, func(t *testing.T) {
				r := call(false, tc.nr, tc.a0, tc.a1)
				assert.Regexp(t, tc.want, r.err)
				assert.Equal(t, tc.want == "", r.failure == nil, r.err)
				assert.Regexp(t, tc.insecure, call(true, tc.nr, tc.a0, tc.a1).err)
			})
		}
		r := b.run(b.step("status", "Seccomp", "NoNewPrivs", "CapBnd", "CapPrm"))
		require.NoError(t, r.failure)
		assert.Contains(t, r.out, "Seccomp:\t2\n")
		assert.Contains(t, r.out, "NoNewPrivs:\t0\n", "set-user-ID programs work")
	})
}

// TestProfilePrograms: each jump of the filters lands inside of it, whatever table is added to.
func TestProfilePrograms(t *testing.T) {
	prog := profileProgram(profileABIs)
	require.Less(t, len(prog), unix.BPF_MAXINSNS)
	for i, in := range prog {
		if in.Code&7 == unix.BPF_JMP && in.Code != bpfJump {
			assert.Less(t, i+1+int(max(in.Jt, in.Jf)), len(prog))
		}
	}
	assert.EqualValues(t, bpfRet, prog[len(prog)-1].Code)
}

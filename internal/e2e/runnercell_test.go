//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// runner is a machine that a job of CI may land on, as one ordinary user sees it.
type runner struct {
	Owners string // "ranges" or "none": what /etc/subuid has for the user
	Host   bool   // the host has a handler for arm64
	Binfmt bool   // a binfmt_misc instance of one's own can be filled
	Place  string

	UID, GID uint32 // set by [runner.on]
	Qemu     string
}

// The places of a runner: what is around the job.
const (
	placePlain   = "plain"
	placeUnshare = "unshare -Urmpf"
	placeBwrap   = "bwrap"
	placeNNP     = "no_new_privs"
	placeMasked  = "masked /proc"
)

var places = []string{placePlain, placeUnshare, placeBwrap, placeNNP, placeMasked}

func (r runner) String() string {
	yes := map[bool]string{true: "yes", false: "no"}
	return fmt.Sprintf("subuid %s, host handler %s, own binfmt %s, %s", r.Owners, yes[r.Host], yes[r.Binfmt], r.Place)
}

// runnerEnv has this test binary become the runner that it describes.
const runnerEnv = "MANIFESTCTL_TEST_RUNNER"

func init() {
	if text, ok := os.LookupEnv(runnerEnv); ok {
		fmt.Fprintln(os.Stderr, "runner:", becomeRunner(text)) // it only returns with an error
		os.Exit(125)
	}
}

// on has c run on r. Whether a handler is registered on this host does not matter, and nothing is registered there:
// around everything is a user namespace with all ids as they are and a binfmt_misc instance of its own, which the
// kernel (6.7) asks where a namespace below has none, as it asks the host's.
func (r runner) on(t *testing.T, c *exec.Cmd) *exec.Cmd {
	t.Helper()
	switch r.Place {
	case placeUnshare:
		c.Args = append([]string{tool(t, "unshare"), "-Urmpf", c.Path}, c.Args[1:]...)
	case placeBwrap:
		c.Args = append([]string{tool(t, "bwrap"), "--bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--proc", "/proc", c.Path}, c.Args[1:]...)
	default:
		c.Args[0] = c.Path
	}
	require.NotNil(t, c.SysProcAttr)
	r.UID, r.GID = c.SysProcAttr.Credential.Uid, c.SysProcAttr.Credential.Gid
	r.Qemu = tool(t, "qemu-aarch64-static")
	text, err := json.Marshal(r)
	require.NoError(t, err)
	c.Path = "/proc/self/exe"
	c.Args = append([]string{"runner"}, c.Args...)
	c.Env = append(c.Env, runnerEnv+"="+string(text))
	all := []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
	}
	return c
}

// becomeRunner makes this process, root of a namespace, the runner that text describes, and executes its arguments there.
func becomeRunner(text string) error {
	runtime.LockOSThread() // filter and no_new_privs belong to a thread
	var r runner
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return err
	}
	if err := os.Unsetenv(runnerEnv); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := ownHandlers(r.Host, r.Qemu); err != nil {
		return fmt.Errorf("an own binfmt_misc: %w", err)
	}
	if r.Place == placeMasked { // as container runtimes do it
		for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
			if err := unix.Mount("/dev/null", name, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("masking %s: %w", name, err)
			}
		}
		if err := unix.Mount("x", "/proc/fs", "tmpfs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("masking: %w", err)
		}
	}
	if !r.Binfmt {
		if err := denyRegistering(); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(int(r.GID), int(r.GID), int(r.GID)), syscall.Setresuid(int(r.UID), int(r.UID), int(r.UID)))
	if err != nil {
		return fmt.Errorf("becoming the user: %w", err)
	}
	if r.Place == placeNNP {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", os.Args[1], unix.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

// ownHandlers mounts a binfmt_misc of this namespace where the host's would be, and fills it as binfmt-support and
// tonistiigi/binfmt do: with the flag F.
func ownHandlers(arm64 bool, qemu string) error {
	const dir = "/proc/sys/fs/binfmt_misc"
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
		return err
	}
	if !arm64 {
		return nil
	}
	for _, h := range emulate.Handlers(context.Background(), emulate.Options{Emulators: map[string]string{"arm64": qemu}}) {
		if h.Arch != "arm64" {
			continue
		}
		h.Name, h.Flags = "qemu-aarch64", "POF"
		return os.WriteFile(dir+"/register", []byte(h.Line()), 0)
	}
	return fmt.Errorf("%s cannot be registered", qemu)
}

// denyRegistering installs a filter under which nothing can be registered. A filter sees no names, so it goes by the
// flags: it refuses to open for writing what is not made, emptied or appended to (O_WRONLY|O_CLOEXEC alone), which is
// how `register` is opened and no file of these builds.
func denyRegistering() error {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		same = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	code := []unix.SockFilter{
		{Code: load, K: 4}, // struct seccomp_data: nr, arch, instruction pointer, args
		{Code: same, K: arch, Jf: 5},
		{Code: load, K: 0},
		{Code: same, K: unix.SYS_OPENAT, Jf: 3},
		{Code: load, K: 16 + 2*8},
		{Code: same, K: unix.O_WRONLY | unix.O_CLOEXEC | unix.O_LARGEFILE, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

package sandbox

// This file is the seccomp profile of steps: the calls that no build needs and that reach what namespaces do not cover (key
// rings, tracing of the kernel, its clock and modules, the machine's host through vsock), or that kernel bugs have been in most.
// Namespaces of its own are a step's to make, as with podman: what it can do in them ends where its own end.

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// profileABI is what is denied of one table of system calls.
type profileABI struct {
	arch          uint32 // AUDIT_ARCH_*
	deny          []uint32
	socket, ioctl uint32
	limit         uint32 // numbers from here on are another table's that the kernel takes under this name; 0: there is none
}

// deniedFamilies are address families that are not of a network namespace: vsock leads to the machine's host.
var deniedFamilies = []uint32{unix.AF_ALG, unix.AF_VSOCK}

// deniedIoctls put input into a terminal.
var deniedIoctls = []uint32{unix.TIOCSTI, unix.TIOCLINUX}

// since are denied calls that have one number in every table: io_uring_setup, _enter, _register, quotactl_fd.
var since = []uint32{425, 426, 427, 443}

// profileProgram is the filter: what is denied fails with EPERM, as with docker, a denied family with EAFNOSUPPORT.
func profileProgram(abis []profileABI) []unix.SockFilter {
	allow := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW}
	fail := func(errno syscall.Errno) unix.SockFilter {
		return unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	var prog []unix.SockFilter
	for _, a := range abis {
		body := []unix.SockFilter{{Code: bpfLoad, K: dataNr}}
		if a.limit != 0 {
			body = append(body, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: a.limit, Jf: 1}, fail(unix.ENOSYS))
		}
		for _, list := range [][]uint32{a.deny, since} {
			for _, nr := range list {
				body = append(body, unix.SockFilter{Code: bpfJeq, K: nr, Jf: 1}, fail(unix.EPERM))
			}
		}
		for _, t := range []struct {
			nr     uint32
			arg    uint32
			values []uint32
			errno  syscall.Errno
		}{{a.socket, 0, deniedFamilies, unix.EAFNOSUPPORT}, {a.ioctl, 1, deniedIoctls, unix.EPERM}} {
			test := []unix.SockFilter{{Code: bpfLoad, K: dataArgs + 8*t.arg}}
			for _, v := range t.values {
				test = append(test, unix.SockFilter{Code: bpfJeq, K: v, Jf: 1}, fail(t.errno))
			}
			test = append(test, allow)
			body = append(body, unix.SockFilter{Code: bpfJeq, K: t.nr, Jf: uint8(len(test))})
			body = append(body, test...)
		}
		body = append(body, allow)
		prog = append(prog, unix.SockFilter{Code: bpfLoad, K: dataArch}, unix.SockFilter{Code: bpfJeq, K: a.arch, Jt: 1}, unix.SockFilter{Code: bpfJump, K: uint32(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, allow)
}

// profile is the filter of the steps of this machine; nil where we have no table of its calls, or its kernel no filters.
func profile() []unix.SockFilter {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))) //nolint:gosec // no wrapper
	if errno != 0 || len(profileABIs) == 0 {
		return nil
	}
	return profileProgram(profileABIs)
}

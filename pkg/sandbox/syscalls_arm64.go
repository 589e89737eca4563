//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs are the system call tables of an arm64 kernel: its own and 32-bit arm's.
var hostABIs = []abi{
	genericABI(unix.AUDIT_ARCH_AARCH64),
	abi32(unix.AUDIT_ARCH_ARM, atNumbers{
		fchownat: 325, mknodat: 324, newfstatat: 327, statx: 397, openat: 322, mkdirat: 323, symlinkat: 331, linkat: 330,
		renameat: 329, renameat2: 382, execveat: 387,
	}, stat64arm),
}

// confinedTables are what a confined step's filter is about.
var confinedTables = []confinedCalls{
	{arch: unix.AUDIT_ARCH_AARCH64, socket: unix.SYS_SOCKET, clone: unix.SYS_CLONE, clone3: unix.SYS_CLONE3, uringUp: unix.SYS_IO_URING_SETUP},
	{arch: unix.AUDIT_ARCH_ARM, socket: 281, socketcall: 102, clone: 120, clone3: 435, uringUp: 425},
}

// procCalls are the calls that a /proc is served through.
var procCalls = genericProcCalls

//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs are the system call tables of an amd64 kernel: its own and i386's (arch/x86/entry/syscalls).
var hostABIs = []abi{
	amd64ABI(),
	abi32(unix.AUDIT_ARCH_I386, atNumbers{
		fchownat: 298, mknodat: 297, newfstatat: 300, statx: 383, openat: 295, mkdirat: 296, symlinkat: 304, linkat: 303,
		renameat: 302, renameat2: 353, execveat: 358,
	}, stat64i386),
}

func amd64ABI() abi {
	calls := atNumbers{
		fchownat: 260, mknodat: 259, newfstatat: 262, statx: 332, openat: 257, openat2: 437, mkdirat: 258, symlinkat: 266,
		linkat: 265, renameat: 264, renameat2: 316, execve: 59, execveat: 322, prctl: 157, capset: 126, setxattr: 188, lsetxattr: 189,
		fsetxattr: 190, listxattr: 194, llistxattr: 195, flistxattr: 196, removexattr: 197, lremovexattr: 198, fremovexattr: 199,
		setxattrat: 463, listxattrat: 465, removexattrat: 466,
	}.calls(statNative)
	calls = append(
		calls, byFD(5, opStat), byPath(4, opStat), byPath(6, opStat).itself(),
		byPath(92, opChown), byFD(93, opChown), byPath(94, opChown).itself(),
		creating(byPath(2, opOpen)), creat(85), byPath(133, opMknod), byPath(83, opMkdir), two(88, opSymlink, -1, 0, -1, 1, -1),
		two(86, opLink, -1, 0, -1, 1, -1), two(82, opRename, -1, 0, -1, 1, -1),
	)
	calls = append(calls, idNumbers{
		get: [2]uint32{102, 104}, gete: [2]uint32{107, 108}, set: [2]uint32{105, 106}, setre: [2]uint32{113, 114},
		setres: [2]uint32{117, 119}, getres: [2]uint32{118, 120}, setfs: [2]uint32{122, 123}, getgroups: 115, setgroups: 116,
	}.calls()...)
	return abi{arch: unix.AUDIT_ARCH_X86_64, calls: calls, deny: []uint32{unix.SYS_IO_URING_SETUP}}
}

// confinedTables are what a confined step's filter is about (arch/x86/entry/syscalls).
var confinedTables = []confinedCalls{
	{
		arch: unix.AUDIT_ARCH_X86_64, socket: unix.SYS_SOCKET, clone: unix.SYS_CLONE, clone3: unix.SYS_CLONE3, uringUp: unix.SYS_IO_URING_SETUP,
		execve: unix.SYS_EXECVE, execveat: unix.SYS_EXECVEAT, x32: true,
	},
	{arch: unix.AUDIT_ARCH_I386, socket: 359, socketcall: 102, clone: 120, clone3: 435, uringUp: 425},
}

// procCalls are the calls that a /proc is served through.
var procCalls = []procCall{
	{nr: unix.SYS_OPENAT, op: opOpen, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: unix.SYS_NEWFSTATAT, op: opStat, dir: 0, path: 1, arg: 2, flags: 3},
	{nr: unix.SYS_OPEN, op: opOpen, dir: -1, path: 0, arg: 1, flags: -1},
	{nr: unix.SYS_READLINK, op: opReadlink, dir: -1, path: 0, arg: 1, flags: -1},
	{nr: unix.SYS_READLINKAT, op: opReadlink, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: unix.SYS_STAT, op: opStat, dir: -1, path: 0, arg: 1, flags: -1},
	{nr: unix.SYS_LSTAT, op: opStat, dir: -1, path: 0, arg: 1, flags: -1, nofollow: true},
	{nr: unix.SYS_STATX, op: opStatx, dir: 0, path: 1, arg: 2, flags: 2},
	{nr: unix.SYS_ACCESS, op: opAccess, dir: -1, path: 0, arg: 1, flags: -1},
	{nr: unix.SYS_FACCESSAT, op: opAccess, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: unix.SYS_FACCESSAT2, op: opAccess, dir: 0, path: 1, arg: 2, flags: 3},
}

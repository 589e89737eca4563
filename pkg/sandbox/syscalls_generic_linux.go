//go:build arm64 || riscv64

package sandbox

// genericABI is asm-generic's table (include/uapi/asm-generic/unistd.h), which arm64 and riscv64 have.
func genericABI(arch uint32) abi {
	calls := atNumbers{
		fchownat: 54, mknodat: 33, newfstatat: 79, statx: 291, openat: 56, openat2: 437, mkdirat: 34, symlinkat: 36, linkat: 37,
		renameat: 38, renameat2: 276, execve: 221, execveat: 281, prctl: 167, capset: 91, setxattr: 5, lsetxattr: 6, fsetxattr: 7,
		listxattr: 11, llistxattr: 12, flistxattr: 13, removexattr: 14, lremovexattr: 15, fremovexattr: 16,
		setxattrat: 463, listxattrat: 465, removexattrat: 466,
	}.calls(statNative)
	calls = append(calls, byFD(80, opStat), byFD(55, opChown))
	calls = append(calls, idNumbers{
		get: [2]uint32{174, 176}, gete: [2]uint32{175, 177}, set: [2]uint32{146, 144}, setre: [2]uint32{145, 143},
		setres: [2]uint32{147, 149}, getres: [2]uint32{148, 150}, setfs: [2]uint32{151, 152}, getgroups: 158, setgroups: 159,
	}.calls()...)
	return abi{arch: arch, calls: calls, deny: []uint32{425}}
}

// genericProcCalls are the calls that a /proc is served through.
var genericProcCalls = []procCall{
	{nr: 56, op: opOpen, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: 79, op: opStat, dir: 0, path: 1, arg: 2, flags: 3},
	{nr: 78, op: opReadlink, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: 291, op: opStatx, dir: 0, path: 1, arg: 2, flags: 2},
	{nr: 48, op: opAccess, dir: 0, path: 1, arg: 2, flags: -1},
	{nr: 439, op: opAccess, dir: 0, path: 1, arg: 2, flags: 3},
}

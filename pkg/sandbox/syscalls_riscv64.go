//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs is the system call table of a riscv64 kernel.
var hostABIs = []abi{genericABI(unix.AUDIT_ARCH_RISCV64)}

// confinedTables are what a confined step's filter is about.
var confinedTables = []confinedCalls{
	{arch: unix.AUDIT_ARCH_RISCV64, socket: unix.SYS_SOCKET, clone: unix.SYS_CLONE, clone3: unix.SYS_CLONE3, uringUp: unix.SYS_IO_URING_SETUP},
}

// procCalls are the calls that a /proc is served through.
var procCalls = genericProcCalls

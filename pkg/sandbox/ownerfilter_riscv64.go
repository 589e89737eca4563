//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs is the system call table of a riscv64 kernel (include/uapi/asm-generic/unistd.h).
var hostABIs = []abi{
	{unix.AUDIT_ARCH_RISCV64, []idCall{fchownatCall(54), fchownCall(55, false)}},
}

//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs are the system call tables of an arm64 kernel: its own and 32-bit arm's (arch/arm/tools/syscall.tbl).
var hostABIs = []abi{
	{unix.AUDIT_ARCH_AARCH64, []idCall{fchownatCall(54), fchownCall(55, false)}},
	{unix.AUDIT_ARCH_ARM, []idCall{
		chownCall(182, false, true), fchownCall(95, true), chownCall(16, true, true),
		chownCall(212, false, false), fchownCall(207, false), chownCall(198, true, false), fchownatCall(325),
	}},
}

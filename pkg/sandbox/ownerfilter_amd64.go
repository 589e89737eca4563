//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs are the system call tables of an amd64 kernel: its own and i386's (arch/x86/entry/syscalls).
var hostABIs = []abi{
	{unix.AUDIT_ARCH_X86_64, []idCall{
		chownCall(92, false, false), fchownCall(93, false), chownCall(94, true, false), fchownatCall(260),
	}},
	{unix.AUDIT_ARCH_I386, []idCall{
		chownCall(182, false, true), fchownCall(95, true), chownCall(16, true, true),
		chownCall(212, false, false), fchownCall(207, false), chownCall(198, true, false), fchownatCall(298),
	}},
}

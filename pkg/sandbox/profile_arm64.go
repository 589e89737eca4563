//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// profileABIs are the tables of an arm64 kernel: its own and 32-bit arm's (arch/arm/tools/syscall.tbl).
var profileABIs = []profileABI{
	genericProfile(unix.AUDIT_ARCH_AARCH64),
	{
		arch: unix.AUDIT_ARCH_ARM, socket: 281, ioctl: 54,
		deny: []uint32{
			309, 310, 311, 386, 364, 388, 347, 401, 128, 379, 129, 371, 51, 87, 115, 88, 79, 262, 404, 372, 405, 131, 103, 111, 169, 249, 86,
		},
	},
}

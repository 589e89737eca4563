//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// profileABIs is the table of a riscv64 kernel.
var profileABIs = []profileABI{genericProfile(unix.AUDIT_ARCH_RISCV64)}

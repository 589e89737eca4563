//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// hostABIs is the system call table of a riscv64 kernel.
var hostABIs = []abi{genericABI(unix.AUDIT_ARCH_RISCV64)}

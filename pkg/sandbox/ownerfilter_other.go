//go:build linux && !amd64 && !arm64 && !riscv64

package sandbox

// hostABIs is empty where the table is not known: the kernel's own refusal has to do.
var hostABIs []abi

//go:build linux && !amd64 && !arm64 && !riscv64

package sandbox

// profileABIs: no table of this architecture is known.
var profileABIs []profileABI

//go:build linux && !amd64 && !arm64 && !riscv64

package sandbox

// hostABIs is empty where the table is not known: a single uid then keeps no owner but root.
var hostABIs []abi

// confinedTables is empty too: steps are not confined without namespaces there.
var confinedTables []confinedCalls

// procCalls is empty as well.
var procCalls []procCall

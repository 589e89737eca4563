// Package firstproc is the first process of the pid namespace that steps run in. It exists so that the agent does not:
// what a step sees of other processes in /proc is this one, which has no file of the host open, an empty root, an empty
// network and nothing in its memory. It reaps what steps leave, and kills all of it when it is told to.
//
// # Invariants
//
//   - It runs before main, in this package's init, when the process was started as one ([Name], [FD]). The Go runtime
//     initializes a package as soon as what it imports is (https://go.dev/ref/spec#Package_initialization), so that one
//     that imports little does not wait for the hundreds that the program has: 3 ms instead of 10.
//   - It imports nothing but the standard library and x/sys.
package firstproc

// Name is argv[0] of a first process; FD is its socket.
const (
	Name = "manifestctl-sandbox-init"
	FD   = 3
)

// What an agent and its first process tell each other, one byte each.
const (
	Ready = 'r' // with the pid namespace, and a procfs of it unless the kernel refuses one
	Kill  = 'k' // kill everything
	Done  = 'd' // nothing is left
)

// HoldDir is a directory that every procfs has and no agent needs: a mount point in an agent's own mount namespace.
const HoldDir = "/proc/driver"

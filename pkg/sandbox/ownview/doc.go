// Package ownview shows this process's program through a file system that has nothing to write to: an overlay of its directory without
// an upper layer, attached nowhere. Whoever executes what it opens cannot be made to overwrite the program, whatever rights
// and descriptors they have.
//
// Who may mount here opens the view itself ([Open]). Others start this program once more in a user namespace, as [Name] with a
// socket as [FD]: it opens the view, sends it and ends.
//
// # Invariants
//
//   - That process does its work in this package's init, before the init of what needs more than the standard library and
//     x/sys ([github.com/manifestctl/manifestctl/pkg/sandbox/firstproc] says why): 3 ms.
//   - What is opened is the file that this process executes, or an error.
package ownview

// Name is argv[0] of a process that only opens the view; FD is its socket.
const (
	Name = "manifestctl-sandbox-view"
	FD   = 3
)

package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
)

// Node is a name in a View. The zero Node is none.
type Node struct {
	v *View
	n *node
}

// Node returns what is at path, with parent symlinks followed inside the image, and with follow the last component too.
// What does not exist is fs.ErrNotExist.
func (v *View) Node(path string, follow bool) (Node, error) {
	n, missing, err := v.t.walk(path, follow)
	switch {
	case err != nil:
		return Node{}, fmt.Errorf("%q: %w", path, err)
	case missing != "":
		return Node{}, fmt.Errorf("%q: %w", path, fs.ErrNotExist)
	}
	return Node{v, n}, nil
}

// Path is the node's real name, clean and relative; "." is the root.
func (n Node) Path() string { return n.n.path() }

// Base is the last component of Path.
func (n Node) Base() string { return n.n.name }

// Entry is what the node is. A hard link has its file's; Name is that of one of its names.
func (n Node) Entry() Entry { return *n.n.ino.e }

// IsDir reports whether the node is a directory.
func (n Node) IsDir() bool { return n.n.isDir() }

// Parent is the directory that the node is in; the root's is itself.
func (n Node) Parent() Node {
	if n.n.parent == nil {
		return n
	}
	return Node{n.v, n.n.parent}
}

// Kid is the name in the directory n; ok is false when there is none.
func (n Node) Kid(name string) (kid Node, ok bool) {
	k := n.n.kids[name]
	return Node{n.v, k}, k != nil
}

// Kids are the names in a directory, sorted.
func (n Node) Kids() []Node {
	sorted := n.n.sortedKids()
	out := make([]Node, len(sorted))
	for i, k := range sorted {
		out[i] = Node{n.v, k}
	}
	return out
}

// File identifies the file, which several names (hard links) may be of.
func (n Node) File() (id any, links int) { return n.n.ino, n.n.ino.links }

// Open reads a regular file.
func (n Node) Open() (io.ReadCloser, error) {
	if n.n.ino.e.Type != tar.TypeReg {
		return nil, fmt.Errorf("opening %q: %w: not a regular file", n.Path(), fs.ErrInvalid)
	}
	return n.v.open(n.n.ino)
}

// Sum is the SHA-256 of a regular file's bytes, remembered for the View's life.
func (n Node) Sum() ([32]byte, error) {
	return n.v.sumOf(n.n.ino, n.Open)
}

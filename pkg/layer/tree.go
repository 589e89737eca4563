package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxHops is how many symlinks Linux follows in one path.
const maxHops = 40

// inode is a file; hard links are several nodes of one inode.
type inode struct {
	e     *Entry
	src   int // layer that holds its data
	links int
}

// node is a name in the merged tree.
type node struct {
	name   string
	parent *node // nil: the root
	kids   map[string]*node
	ino    *inode
	layer  int // that made this name; implicit directories too
	// touched is the last layer that had an entry in this directory, a whiteout too, which thereby says that it exists.
	touched int
}

func (n *node) isDir() bool { return n.ino.e.Type == tar.TypeDir }

// path is the node's clean name.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	depth := 0
	for p := n; p.parent != nil; p = p.parent {
		depth += len(p.name) + 1
	}
	b := make([]byte, depth-1)
	for p, at := n, len(b); p.parent != nil; p = p.parent {
		at -= len(p.name)
		copy(b[at:], p.name)
		if at > 0 {
			at--
			b[at] = '/'
		}
	}
	return string(b)
}

func (n *node) sortedKids() []*node {
	kids := slices.Collect(maps.Values(n.kids))
	slices.SortFunc(kids, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return kids
}

// implicitDir is a directory that no entry describes.
var implicitDir = Entry{Type: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}

// tree is the merged tree; package-internal half of View.
type tree struct {
	root *node
	// lastDir spares most lookups while layers are added: entries of one directory follow each other.
	lastName string
	lastDir  *node
}

func newTree() *tree {
	return &tree{root: &node{ino: &inode{e: &implicitDir, src: -1}, layer: -1, touched: -1}}
}

func notDir(name string) error {
	return fmt.Errorf("%w: %q is not a directory: %w", ErrInvalid, name, syscall.ENOTDIR)
}

// walk goes along path. It returns the node reached and what is missing below it
// ("" when path exists), as it was left to walk. With follow the last component is followed too when it is a symlink.
func (t *tree) walk(path string, follow bool) (n *node, missing string, err error) {
	return t.visit(path, follow, func(*node) {})
}

// visit is walk that calls seen for each name on the way, symlinks and the result included.
func (t *tree) visit(path string, follow bool, seen func(*node)) (n *node, missing string, err error) {
	n = t.root
	seen(n)
	rest := path
	for hops := 0; rest != ""; {
		var c string
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			c, rest = rest[:i], strings.TrimLeft(rest[i+1:], "/")
		} else {
			c, rest = rest, ""
		}
		switch c {
		case "", ".":
			continue
		case "..":
			if n.parent != nil {
				n = n.parent
			}
			continue
		}
		kid := n.kids[c]
		switch {
		case kid == nil:
			if !n.isDir() {
				return nil, "", notDir(n.path())
			}
			return n, joinName(c, rest), nil
		case kid.ino.e.Type == tar.TypeSymlink && (rest != "" || follow):
			if hops++; hops > maxHops {
				return nil, "", fmt.Errorf("%w: following %q: %w", ErrInvalid, path, syscall.ELOOP)
			}
			seen(kid)
			link := kid.ino.e.Link
			if strings.HasPrefix(link, "/") {
				n = t.root
				link = strings.TrimLeft(link, "/")
			}
			if rest == "" {
				rest = link
			} else {
				rest = link + "/" + rest
			}
			if len(rest) > 1<<16 {
				return nil, "", fmt.Errorf("%w: following %q: %w", ErrInvalid, path, syscall.ENAMETOOLONG)
			}
		case rest != "" && !kid.isDir():
			return nil, "", notDir(kid.path())
		default:
			n = kid
			seen(n)
		}
	}
	return n, "", nil
}

// mkdirs returns the directory called name, symlinks followed, and makes what is missing.
func (t *tree) mkdirs(name string, layer int) (*node, error) {
	if name == "." {
		return t.root, nil
	}
	if t.lastDir != nil && name == t.lastName {
		return t.lastDir, nil
	}
	n, missing, err := t.walk(name, true)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, notDir(n.path())
	}
	for missing != "" {
		c, rest, _ := strings.Cut(missing, "/")
		missing = rest
		switch c {
		case "", ".":
		case "..":
			if n.parent != nil {
				n = n.parent
			}
		default:
			kid := n.kids[c]
			if kid == nil {
				kid = n.put(c, &inode{e: &implicitDir, src: layer}, layer)
			} else if !kid.isDir() {
				return nil, notDir(kid.path())
			}
			n = kid
		}
	}
	n.touched = layer
	t.lastName, t.lastDir = name, n
	return n, nil
}

// put makes or replaces the name c of n.
func (n *node) put(c string, ino *inode, layer int) *node {
	kid := &node{name: c, parent: n, ino: ino, layer: layer, touched: -1}
	if n.kids == nil {
		n.kids = make(map[string]*node)
	}
	n.kids[c] = kid
	ino.links++
	return kid
}

// prune drops what layers below layer put at n and under it; it reports whether n stays because of
// what layer itself has there. A directory of which only the contents stay is as if nobody had described it.
func (n *node) prune(layer int) bool {
	n.pruneKids(layer)
	if n.layer == layer {
		return true
	}
	if len(n.kids) == 0 && (n.touched != layer || !n.isDir()) {
		n.ino.links--
		return false
	}
	n.ino, n.layer = &inode{e: &implicitDir, src: layer, links: 1}, layer
	return true
}

func (n *node) pruneKids(layer int) {
	for name, kid := range n.kids {
		if !kid.prune(layer) {
			delete(n.kids, name)
		}
	}
}

// drop forgets the links of everything below n, which was replaced.
func (n *node) drop() {
	n.ino.links--
	for _, kid := range n.kids {
		kid.drop()
	}
}

// add merges one layer over the tree.
func (t *tree) add(layer int, entries []Entry) error {
	var pending []*Entry
	t.lastDir = nil
	for i := range entries {
		e := &entries[i]
		done, err := t.entry(layer, e, false)
		if err != nil {
			return &EntryError{Name: e.Name, Offset: -1, Err: err}
		}
		if len(pending) > 0 && !e.Whiteout && !e.Opaque {
			pending = slices.DeleteFunc(pending, func(p *Entry) bool { return p.Name == e.Name })
		}
		if !done {
			pending = append(pending, e)
		}
	}
	if err := retryLinks(pending, func(e *Entry) (bool, error) { return t.entry(layer, e, true) }); err != nil {
		return err
	}
	t.lastDir = nil
	return nil
}

// retryLinks makes the hard links that had to wait for their targets, which may be such links too.
func retryLinks(pending []*Entry, link func(*Entry) (done bool, err error)) error {
	waiting := make(map[string]bool, len(pending))
	for _, e := range pending {
		waiting[e.Name] = true
	}
	for inOrder := true; len(pending) > 0; {
		rest := pending[:0:0]
		for _, e := range pending {
			done := false
			if !inOrder || !waiting[e.Link] {
				var err error
				if done, err = link(e); err != nil {
					return &EntryError{Name: e.Name, Offset: -1, Err: err}
				}
			}
			if done {
				delete(waiting, e.Name)
			} else {
				rest = append(rest, e)
			}
		}
		if len(rest) == len(pending) {
			if !inOrder {
				e := rest[0]
				return &EntryError{Name: e.Name, Offset: -1, Err: fmt.Errorf("%w: hard link to %q, which is missing", ErrInvalid, e.Link)}
			}
			inOrder = false // they wait for each other: what is below may still have one of them
		}
		pending = rest
	}
	return nil
}

// entry merges one entry. done is false for a hard link whose target may still come: one to something
// that is not this layer's waits until all of the layer is there (last).
func (t *tree) entry(layer int, e *Entry, last bool) (done bool, err error) {
	if e.Opaque {
		dir, err := t.mkdirs(e.Name, layer)
		if err != nil {
			return false, err
		}
		dir.pruneKids(layer)
		t.lastDir = nil
		return true, nil
	}
	if e.Name == "." {
		if e.Type != tar.TypeDir {
			return false, ErrUnsafe
		}
		t.root.ino, t.root.layer = &inode{e: e, src: layer, links: 1}, layer
		return true, nil
	}
	ino := &inode{e: e, src: layer}
	var target *node
	if e.Type == tar.TypeLink { // before anything is made for the link's own name
		var missing string
		target, missing, err = t.walk(e.Link, false)
		switch {
		case err != nil:
			return false, err
		case missing != "", (target.layer != layer || target.isDir()) && !last:
			return false, nil
		case target.isDir():
			return false, fmt.Errorf("%w: hard link to the directory %q", ErrInvalid, e.Link)
		}
		ino = target.ino
	}
	parent, base := splitName(e.Name)
	dir, err := t.mkdirs(parent, layer)
	if err != nil {
		return false, err
	}
	old := dir.kids[base]
	if e.Whiteout {
		if old != nil {
			if !old.prune(layer) {
				delete(dir.kids, base)
			}
			t.lastDir = nil
		}
		return true, nil
	}
	if e.Type == tar.TypeDir && old != nil && old.isDir() {
		old.ino, old.layer = &inode{e: e, src: layer, links: 1}, layer
		return true, nil
	}
	if target != nil && target == old {
		return true, nil
	}
	if old != nil {
		old.drop()
		t.lastDir = nil
	}
	dir.put(base, ino, layer)
	return true, nil
}

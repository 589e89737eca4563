package layer

import "archive/tar"

// Graft makes p the directory n with all below it, as it is there: what is copied whole needs no place for each of its files, of
// which there can be very many. It reports false, having changed nothing, where that is not the same as to copy one by one: when
// something is or was at p, or when n has what is neither a directory nor a file or symlink of one name, or what same refuses.
func (p *Place) Graft(n Node, same func(Entry) bool) (bool, error) {
	if p.orig != nil || p.kids != nil || !n.IsDir() {
		return false, nil
	}
	if err := p.vacant("mkdir"); err != nil {
		return false, err
	}
	if odd := p.u.odd(n.n, same); odd != nil {
		for ; odd != nil; odd = odd.parent { // they are not looked through again
			p.u.odds[odd] = struct{}{}
		}
		return false, nil
	}
	g := p.grafted(n)
	p.file, p.graft, p.hidden = g.file, g.graft, g.hidden
	p.parent.touch(p.u.made())
	return true, nil
}

// odd is what of n and all below it cannot be grafted; nil is nothing.
func (u *Upper) odd(n *node, same func(Entry) bool) *node {
	if _, known := u.odds[n]; known {
		return n
	}
	e := n.ino.e
	switch {
	case n.parent == nil, e.Whiteout, e.Opaque, e.ModTime.IsZero(), e.Mode&0o7777 != e.Mode, checkEntry(e) != nil, checkNotWhiteout(n.name) != nil, !same(*e):
		return n
	case e.Type == tar.TypeDir:
	case e.Type != tar.TypeReg && e.Type != tar.TypeSymlink, n.ino.links > 1:
		return n
	}
	for _, k := range n.kids {
		if odd := u.odd(k, same); odd != nil {
			return odd
		}
	}
	return nil
}

// grafted is a place below p for what n is. It is not yet one of p's.
func (p *Place) grafted(n Node) *Place {
	k := &Place{u: p.u, name: n.n.name, parent: p, file: &upperFile{e: n.n.ino.e, node: n, own: true, shared: true}}
	if n.n.isDir() {
		k.hidden = true
		if len(n.n.kids) > 0 {
			k.graft = n
		}
	}
	return k
}

// expand makes places of the names of a grafted directory: somebody asks for one.
func (p *Place) expand() {
	g := p.graft
	if g.n == nil {
		return
	}
	p.graft = Node{}
	p.kids = make(map[string]*Place, len(g.n.kids))
	for name, n := range g.n.kids {
		p.kids[name] = p.grafted(Node{g.v, n})
	}
}

// graft writes what is below a grafted directory.
func (w *upperWriter) graft(p *Place, name string) error {
	for _, n := range p.graft.n.sortedKids() {
		if err := w.place(p.grafted(Node{p.graft.v, n}), joinName(name, n.name)); err != nil {
			return err
		}
	}
	return nil
}

package layer

import (
	"fmt"
	"io"
	"io/fs"
)

// View is the rootfs with the changes so far; later ones are not in it. Its data is that of the Upper's base and of
// what was put into it.
func (u *Upper) View() (*View, error) {
	c := viewMaker{inodes: map[*upperFile]*inode{}, kept: map[*inode]*inode{}, files: map[*Entry]*upperFile{}}
	v := &View{t: newTree(), srcs: u.base.srcs}
	c.src = len(v.srcs)
	v.srcs = append(v.srcs[:len(v.srcs):len(v.srcs)], &source{entry: c.open})
	v.t.root.ino = c.inode(u.root)
	c.fill(v.t.root, u.root)
	return v, nil
}

type viewMaker struct {
	src    int
	inodes map[*upperFile]*inode
	kept   map[*inode]*inode
	files  map[*Entry]*upperFile
}

func (c *viewMaker) open(e *Entry) (io.ReadCloser, error) {
	f := c.files[e]
	switch {
	case f != nil && f.open != nil:
		return f.open()
	case f != nil && f.node.n != nil:
		return f.node.Open()
	}
	return nil, fmt.Errorf("reading %q: %w", e.Name, fs.ErrInvalid)
}

// inode is the file at p; what is unchanged of the base keeps the base's source.
func (c *viewMaker) inode(p *Place) *inode {
	if ino := c.inodes[p.file]; ino != nil {
		return ino
	}
	if p.file.from != nil && !p.file.own {
		return c.keep(p.file.from)
	}
	e := *p.file.e
	ino := &inode{e: &e, src: c.src}
	if p.file.from != nil {
		ino.src = p.file.from.src
	}
	c.inodes[p.file], c.files[&e] = ino, p.file
	return ino
}

func (c *viewMaker) keep(from *inode) *inode {
	ino := c.kept[from]
	if ino == nil {
		ino = &inode{e: from.e, src: from.src}
		c.kept[from] = ino
	}
	return ino
}

func (c *viewMaker) fill(n *node, p *Place) {
	for _, name := range p.Names() {
		if k := p.kids[name]; k != nil {
			c.fill(n.put(name, c.inode(k), c.src), k)
			continue
		}
		c.base(n.put(name, c.keep(p.orig.kids[name].ino), c.src), p.orig.kids[name])
	}
}

// base copies what nobody looked at.
func (c *viewMaker) base(n, from *node) {
	for name, k := range from.kids {
		c.base(n.put(name, c.keep(k.ino), c.src), k)
	}
}

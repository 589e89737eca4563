package layer

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Digest identifies the content at path (type, mode, owner, xattrs, names, data; no times): the key of what reads it.
// Names below path count relative to it, so that equal trees at different places have one digest.
func (v *View) Digest(path string) (digest.Digest, error) {
	h := sha256.New()
	w := fieldHash{h: h}
	w.str("manifestctl tree 1")
	root := ""
	rel := func(name string) string {
		switch {
		case name == root:
			return "."
		case root == ".":
			return name
		}
		return name[len(root)+1:]
	}
	err := v.Walk(path, func(e Entry, open func() (io.ReadCloser, error)) error {
		if root == "" {
			root = e.Name
		}
		w.str(rel(e.Name))
		w.num(int64(e.Type))
		if e.Type == tar.TypeLink {
			w.str(rel(e.Link))
			return nil
		}
		w.str(e.Link)
		for _, n := range []int64{e.Mode, int64(e.UID), int64(e.GID), e.Major, e.Minor, int64(len(e.Xattrs))} {
			w.num(n)
		}
		for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
			w.str(k)
			w.str(e.Xattrs[k])
		}
		w.num(e.Size)
		if e.Type != tar.TypeReg {
			return nil
		}
		sum, err := v.dataSum(e, open)
		h.Write(sum[:])
		return err
	})
	if err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// dataSum is the digest of a file's bytes, remembered for the View's life.
func (v *View) dataSum(e Entry, open func() (io.ReadCloser, error)) (sum [32]byte, err error) {
	n, _, err := v.t.walk(e.Name, false)
	if err != nil {
		return sum, err
	}
	return v.sumOf(n.ino, open)
}

func (v *View) sumOf(ino *inode, open func() (io.ReadCloser, error)) (sum [32]byte, err error) {
	if s, ok := v.sums.Load(ino); ok {
		if sum, ok := s.([32]byte); ok {
			return sum, nil
		}
	}
	if ino.src >= 0 {
		if known := v.srcs[ino.src].sum; known != nil {
			if sum, ok := known(ino.e); ok {
				return sum, nil
			}
		}
	}
	r, err := open()
	if err != nil {
		return sum, err
	}
	sum, err = sumReader(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return sum, fmt.Errorf("reading %q: %w", ino.e.Name, err)
	}
	v.sums.Store(ino, sum)
	return sum, nil
}

func sumReader(r io.Reader) (sum [32]byte, err error) {
	h := sha256.New()
	buf := bufPool.Get()
	defer bufPool.Put(buf)
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, *buf)
	h.Sum(sum[:0])
	return sum, err
}

// fieldHash writes fields so that no two sequences of them give the same bytes.
type fieldHash struct{ h hash.Hash }

func (f *fieldHash) num(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	f.h.Write(b[:])
}

func (f *fieldHash) str(s string) {
	f.num(int64(len(s)))
	io.WriteString(f.h, s) //nolint:errcheck // a hash never fails
}

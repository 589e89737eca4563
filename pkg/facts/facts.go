// Package facts gathers what the files of a layer say about themselves, in the one pass that reads the layer's table of
// contents: executables, the dynamic loader's configuration, installed packages. It is kept by digest.
//
// # Invariants
//
//   - A layer is read once, in order; at most [exe.MaxKept] bytes of it are held.
//   - Facts are a function of a layer's content. They are looked up by a digest of what was read here, never by what
//     somebody claims.
package facts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/packages"
)

const (
	maxText  = 64 << 10  // bytes of one of the loader's files
	maxTexts = 1 << 20   // of all of a layer
	maxSpool = 512 << 20 // of a package database that is read at random
)

// Layer is what the files of one layer say, in the order of their data.
type Layer struct {
	DiffID digest.Digest `json:"diffID"`
	Files  []File        `json:"files"`
}

// File is what one file says. At is [layer.Entry]'s Offset, which no two files with content share.
type File struct {
	At       int64              `json:"at"`
	Exe      *exe.File          `json:"exe,omitempty"`
	Text     string             `json:"text,omitempty"` // of the dynamic loader's configuration
	Packages []packages.Package `json:"packages,omitempty"`
	// Problem says why a package database could not be read.
	Problem string `json:"problem,omitempty"`
}

// Find returns what the file with its data at offset says.
func (l *Layer) Find(offset int64) (*File, bool) {
	i, ok := slices.BinarySearchFunc(l.Files, offset, func(f File, at int64) int { return cmp.Compare(f.At, at) })
	if !ok {
		return nil, false
	}
	return &l.Files[i], true
}

// Options tunes Read.
type Options struct {
	Limits layer.Limits
	// DiffID is the digest of what is read when the caller's reader verifies it already.
	DiffID digest.Digest
	// NoDigest leaves it empty in both results: the caller, whose writer computes it, fills it in.
	NoDigest bool
	// Hold is that of [layer.ScanOptions].
	Hold int
	// Spool is the directory for temporary files; "" is the system's.
	Spool string
}

// Read reads a layer's uncompressed tar: its table of contents, and what its files say.
func Read(ctx context.Context, r io.Reader, o Options) (*layer.TOC, *Layer, error) {
	c := collector{out: &Layer{Files: []File{}}, spool: o.Spool, buf: make([]byte, 64<<10)}
	toc, err := layer.Scan(ctx, r, layer.ScanOptions{Limits: o.Limits, DiffID: o.DiffID, NoDigest: o.NoDigest, Hold: o.Hold, Visit: c.visit})
	if err != nil {
		return nil, nil, err
	}
	c.out.DiffID = toc.DiffID
	return toc, c.out, nil
}

type collector struct {
	out   *Layer
	exe   exe.Collector
	texts int
	spool string
	buf   []byte
}

func (c *collector) visit(e *layer.Entry, data layer.Packed) error {
	if data == nil || e.Size == 0 {
		return nil
	}
	if isLoaderConfig(e.Name) && e.Size <= maxText && e.Sparse == nil && c.texts+int(e.Size) <= maxTexts {
		b, err := io.ReadAll(data)
		if err != nil {
			return err
		}
		c.texts += len(b)
		c.out.Files = append(c.out.Files, File{At: e.Offset, Text: string(b)})
		return nil
	}
	if kind := packages.KindOf(e.Name); kind != "" && e.Sparse == nil {
		return c.database(kind, e, data)
	}
	f, err := c.executable(e, data)
	if err != nil || f == nil {
		return err
	}
	c.out.Files = append(c.out.Files, File{At: e.Offset, Exe: f})
	return nil
}

// executable reads the headers of a file. Of a file of no known format only its first bytes are looked at.
func (c *collector) executable(e *layer.Entry, data layer.Packed) (*exe.File, error) {
	c.exe.Reset(e.Size)
	if e.Sparse != nil {
		if err := c.sparse(e, data); err != nil {
			return nil, err
		}
		return c.exe.File(), nil
	}
	if _, err := data.WriteTo(&c.exe); err != nil && !errors.Is(err, exe.ErrEnough) {
		return nil, err
	}
	return c.exe.File(), nil
}

// sparse hands over a file whose holes are not in the archive.
func (c *collector) sparse(e *layer.Entry, data io.Reader) error {
	pos := int64(0)
	for _, x := range e.Sparse {
		c.exe.Skip(x.Offset - pos)
		for left := x.Length; left > 0; {
			n, err := io.ReadFull(data, c.buf[:min(left, int64(len(c.buf)))])
			if err != nil {
				return err
			}
			if _, err := c.exe.Write(c.buf[:n]); err != nil {
				return nil //nolint:nilerr // no more of it is needed
			}
			left -= int64(n)
		}
		pos = x.Offset + x.Length
	}
	c.exe.Skip(e.Size - pos)
	return nil
}

// database reads the installed packages. One that cannot be read is a fact as well.
func (c *collector) database(kind packages.Kind, e *layer.Entry, data io.Reader) error {
	out := File{At: e.Offset}
	var err error
	if kind.Random() {
		out.Packages, err = c.random(kind, e, data)
	} else {
		out.Packages, err = packages.Read(kind, data)
	}
	if err != nil {
		if !errors.Is(err, packages.ErrInvalid) {
			return err
		}
		out.Problem = err.Error()
	}
	c.out.Files = append(c.out.Files, out)
	return nil
}

// random reads a database through a temporary file.
func (c *collector) random(kind packages.Kind, e *layer.Entry, data io.Reader) (_ []packages.Package, err error) {
	if e.Size > maxSpool {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", packages.ErrInvalid, e.Size, maxSpool)
	}
	f, err := os.CreateTemp(c.spool, "manifestctl-packages-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, data, c.buf)
	if err != nil {
		return nil, err
	}
	return packages.ReadAt(kind, f, n)
}

// isLoaderConfig reports whether the dynamic loader of glibc or musl reads the file.
func isLoaderConfig(name string) bool {
	return name == "etc/ld.so.conf" || strings.HasPrefix(name, "etc/ld.so.conf.d/") ||
		strings.HasPrefix(name, "etc/ld-musl-") && strings.HasSuffix(name, ".path")
}

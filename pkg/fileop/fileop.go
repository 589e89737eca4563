// Package fileop does what COPY, ADD, WORKDIR and heredocs of a Dockerfile do, as BuildKit does it, without a file
// system: from merged views of the inputs' layers to changes of a rootfs in memory (layer.Upper), which become a
// layer.
//
// # Invariants
//
//   - Names of an image lead to nothing outside of it: every path is walked in memory, in the tree it belongs to.
//   - What two copies with equal hashes ([Hash]) put at a place is equal but for times.
package fileop

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// ErrConflict reports a copy of a directory over a file, or of a file over a directory.
var ErrConflict = errors.New("cannot be replaced")

// Inputs are the rootfs that an operation reads, by index; 0 is that of the Upper before the operation. nil is scratch.
type Inputs []*layer.View

// view returns an input; -1 and nil are an empty rootfs.
func (in Inputs) view(i int) (*layer.View, error) {
	if i < 0 || i < len(in) && in[i] == nil {
		return layer.NewView(nil)
	}
	if i >= len(in) {
		return nil, fmt.Errorf("input %d of %d: %w", i, len(in), fs.ErrInvalid)
	}
	return in[i], nil
}

// Options tunes Apply. Spool is required for archives.
type Options struct {
	Spool  func() (dir string, err error) // a directory for data of compressed archives, that lives as long as the Upper
	Limits layer.Limits
}

// Apply does op's actions to u.
func Apply(ctx context.Context, u *layer.Upper, op graph.File, in Inputs, o Options) error {
	for _, a := range op.Actions {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := apply(ctx, u, a, in, o); err != nil {
			return err
		}
	}
	return nil
}

func apply(ctx context.Context, u *layer.Upper, a graph.FileAction, in Inputs, o Options) error {
	switch {
	case a.Copy != nil:
		return copyTo(ctx, u, *a.Copy, in, o)
	case a.Mkfile != nil:
		return mkfile(u, *a.Mkfile, in)
	case a.Mkdir != nil:
		return mkdir(u, *a.Mkdir, in)
	case a.Symlink != nil:
		return symlink(u, *a.Symlink, in)
	case a.Rm != nil:
		return rm(u, *a.Rm)
	}
	return fmt.Errorf("an action that does nothing: %w", fs.ErrInvalid)
}

// ids are a numeric owner; nil is "as it is".
type ids struct{ uid, gid int }

// owner looks up an owner. Names that are not there are 0, as for BuildKit.
func owner(o *graph.Owner, in Inputs) (*ids, error) {
	if o == nil {
		return nil, nil
	}
	var out ids
	if a := o.User; a != nil {
		if a.Name == "" {
			out = ids{a.ID, a.ID}
		} else {
			v, err := in.view(a.Input)
			if err != nil {
				return nil, err
			}
			uid, gid, ok, err := v.UserByName(a.Name)
			if err != nil {
				return nil, fmt.Errorf("user %q: %w", a.Name, err)
			}
			if ok {
				out = ids{uid, gid}
			}
		}
	}
	if a := o.Group; a != nil {
		if a.Name == "" {
			out.gid = a.ID
		} else {
			v, err := in.view(a.Input)
			if err != nil {
				return nil, err
			}
			gid, ok, err := v.GroupByName(a.Name)
			if err != nil {
				return nil, fmt.Errorf("group %q: %w", a.Name, err)
			}
			if ok {
				out.gid = gid
			}
		}
	}
	return &out, nil
}

func at(ns *int64) *time.Time {
	if ns == nil {
		return nil
	}
	t := time.Unix(0, *ns)
	return &t
}

// adjust sets owner and time of what was just made, where they are given.
func adjust(p *layer.Place, own *ids, when *time.Time) error {
	e, ok := p.Entry()
	if !ok || own == nil && when == nil {
		return nil
	}
	if own != nil {
		e.UID, e.GID = own.uid, own.gid
	}
	if when != nil {
		e.ModTime = *when
	}
	return p.Set(e)
}

// mkdirAll makes p and the directories above it that are missing.
func mkdirAll(p *layer.Place, mode int64, own *ids, when *time.Time) error {
	if _, ok := p.Entry(); ok {
		if p.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "mkdir", Path: "/" + p.Path(), Err: syscall.ENOTDIR}
	}
	if err := mkdirAll(p.Parent(), mode, own, when); err != nil {
		return err
	}
	if err := p.Mkdir(mode); err != nil {
		return err
	}
	return adjust(p, own, when)
}

func mkdir(u *layer.Upper, a graph.FileMkdir, in Inputs) error {
	p, err := u.Root().Walk(a.Path, true)
	if err != nil {
		return err
	}
	own, err := owner(a.Owner, in)
	if err != nil {
		return err
	}
	mode := int64(a.Mode & 0o777)
	if a.Parents {
		return mkdirAll(p, mode, own, at(a.Time))
	}
	if _, ok := p.Entry(); ok {
		return nil
	}
	if err := p.Mkdir(mode); err != nil {
		return err
	}
	return adjust(p, own, at(a.Time))
}

func mkfile(u *layer.Upper, a graph.FileMkfile, in Inputs) error {
	p, err := u.Root().Walk(a.Path, true)
	if err != nil {
		return err
	}
	if p.IsDir() {
		return &fs.PathError{Op: "mkfile", Path: "/" + p.Path(), Err: syscall.EISDIR}
	}
	own, err := owner(a.Owner, in)
	if err != nil {
		return err
	}
	if err := p.Remove(); err != nil {
		return err
	}
	e := layer.Entry{Type: tar.TypeReg, Mode: int64(a.Mode & 0o777), Size: int64(len(a.Data))}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a.Data)), nil }
	if when := at(a.Time); when != nil {
		e.ModTime = *when
	}
	if err := p.Put(e, open); err != nil {
		return err
	}
	return adjust(p, own, at(a.Time))
}

func symlink(u *layer.Upper, a graph.FileSymlink, in Inputs) error {
	p, err := u.Root().Walk(a.New, true)
	if err != nil {
		return err
	}
	own, err := owner(a.Owner, in)
	if err != nil {
		return err
	}
	e := layer.Entry{Type: tar.TypeSymlink, Mode: 0o777, Link: a.Old}
	if err := p.Put(e, nil); err != nil {
		return err
	}
	return adjust(p, own, at(a.Time))
}

func rm(u *layer.Upper, a graph.FileRm) error {
	names := []string{path.Join("/", a.Path)}
	if a.Wildcard {
		var err error
		if names, err = wildcards(placeTree{u.Root()}, a.Path, false); err != nil {
			return err
		}
	}
	for _, name := range names {
		dir, base := path.Split(path.Join("/", name))
		if base == "" {
			return &fs.PathError{Op: "rm", Path: name, Err: syscall.EBUSY}
		}
		d, err := u.Root().Walk(dir, true)
		if err != nil {
			return err
		}
		p := d.Kid(base)
		if _, ok := p.Entry(); !ok {
			if a.MayMiss || a.Wildcard {
				continue
			}
			return &fs.PathError{Op: "rm", Path: name, Err: fs.ErrNotExist}
		}
		if err := p.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// cleanKeep makes a path absolute and clean but keeps what says that it is a directory: "/" or "/." at the end.
func cleanKeep(p string) string {
	c := path.Join("/", p)
	switch {
	case strings.HasSuffix(p, "/."):
		if c != "/" {
			c += "/"
		}
		return c + "."
	case strings.HasSuffix(p, "/") && c != "/":
		return c + "/"
	}
	return c
}

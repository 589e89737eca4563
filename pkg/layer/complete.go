package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
)

// Missing lists what a layer needs from below to be unpacked on its own, sorted: directories that it puts
// something into without naming them ("." too), and files that it only links to.
func Missing(t *TOC) []string {
	named := make(map[string]bool, len(t.Entries))
	for _, e := range t.Entries {
		if !e.Whiteout && !e.Opaque {
			named[e.Name] = true
		}
	}
	need := map[string]bool{}
	parents := func(name string) {
		for d := path.Dir(name); ; d = path.Dir(d) {
			if named[d] || need[d] {
				if d == "." {
					return
				}
				continue
			}
			need[d] = true
			if d == "." {
				return
			}
		}
	}
	parents(".")
	for _, e := range t.Entries {
		if e.Name != "." {
			parents(e.Name)
		}
		if e.Type == tar.TypeLink && !e.Whiteout && !e.Opaque && !named[e.Link] {
			need[e.Link] = true
			parents(e.Link)
		}
	}
	out := make([]string, 0, len(need))
	for name := range need {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// WriteMembers writes the named entries of v as tar members without the end of an archive, so that a layer can
// follow. Names that v does not have are left out: whoever unpacks makes plain directories of them.
func WriteMembers(ctx context.Context, w io.Writer, v *View, names []string) error {
	tw := tar.NewWriter(w)
	for _, name := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		e, ok := v.Lstat(name)
		if !ok || e.Name != name { // a parent that is a symlink below is resolved by whoever unpacks
			continue
		}
		if err := writeMember(tw, v, e); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return tw.Flush()
}

func writeMember(tw *tar.Writer, v *View, e Entry) (err error) {
	h := &tar.Header{
		Typeflag: e.Type, Name: e.Name, Linkname: e.Link, Mode: e.Mode, Uid: e.UID, Gid: e.GID,
		ModTime: e.ModTime, Devmajor: e.Major, Devminor: e.Minor, Format: tar.FormatPAX,
	}
	if len(e.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for k, val := range e.Xattrs {
			h.PAXRecords["SCHILY.xattr."+k] = val
		}
	}
	switch e.Type {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeLink: // its data is what matters, not the name it is linked to
		h.Typeflag, h.Linkname = tar.TypeReg, ""
	}
	if h.Typeflag != tar.TypeReg {
		return tw.WriteHeader(h)
	}
	target, ok := v.Stat(e.Name)
	if !ok {
		return errors.New("its data is not there")
	}
	h.Size = target.Size
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	r, err := v.Open(e.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(tw, r)
	return err
}

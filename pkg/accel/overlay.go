package accel

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/packages"
)

// Overlay is what lies over one image.
type Overlay struct {
	Programs []string // that stand in, sorted
	Left     []string // that do not, and why, sorted

	sums  map[digest.Digest]string // of what is native, to the name
	sizes map[int64]bool
	names map[string]bool // that the image does not have
	tree  map[string]*item
}

// item is one name of the overlay.
type item struct {
	entry layer.Entry
	file  file
}

// Fit chooses what may lie over an image; that may be no program.
func (t *Tools) Fit(view *layer.View) (*Overlay, error) {
	versions, err := installed(view)
	if err != nil {
		return nil, err
	}
	o := &Overlay{sums: map[digest.Digest]string{}, sizes: map[int64]bool{}, names: map[string]bool{}, tree: map[string]*item{}}
	for _, p := range t.packs {
		if _, ok := programs[p.name]; !ok {
			continue
		}
		have, ok := versions[p.name]
		if !ok {
			continue
		}
		if upstream(have) != upstream(p.version) {
			o.Left = append(o.Left, fmt.Sprintf("%s: the image has version %s, not %s", p.name, have, p.version))
			continue
		}
		for name, f := range p.files {
			if f.data == nil || strings.Contains(path.Base(name), ".so") {
				continue
			}
			if err := t.program(o, view, name, f); err != nil {
				o.Left = append(o.Left, fmt.Sprintf("%s: %v", name, err))
			}
		}
	}
	slices.Sort(o.Programs)
	slices.Sort(o.Left)
	return o, nil
}

// installed are the versions of the packages of an image; nil: it has none of Debian's.
func installed(view *layer.View) (map[string]string, error) {
	f, err := view.Open("/var/lib/dpkg/status")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := packages.Read(packages.Dpkg, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil //nolint:nilerr // an image whose database is broken is as it is: without
	}
	versions := map[string]string{}
	for _, p := range list {
		versions[p.Name] = p.Version
	}
	return versions, nil
}

var errNotThere = errors.New("the image does not have it")

// program puts a program and all it needs into the overlay, or nothing.
func (t *Tools) program(o *Overlay, view *layer.View, name string, f file) error {
	e, ok := view.Stat(name)
	if !ok || e.Type != tar.TypeReg {
		return errNotThere
	}
	interp, libs, err := needs(f.data)
	if err != nil {
		return nil //nolint:nilerr // a script
	}
	add := map[string]file{}
	if interp != "" {
		libs = append(slices.Clone(libs), path.Base(interp))
	}
	for len(libs) > 0 {
		lib := libs[0]
		libs = libs[1:]
		at, found, ok := t.library(lib, interp)
		if !ok {
			return fmt.Errorf("it needs %s, which is in none of the packages", lib)
		}
		if _, done := add[at]; done {
			continue
		}
		for at != "" {
			if _, there := view.Lstat(at); there {
				return fmt.Errorf("the image has a %s of its own", at)
			}
			add[at] = found
			if found.target == "" {
				break
			}
			if !path.IsAbs(found.target) {
				found.target = path.Join(path.Dir(at), found.target)
			}
			at = found.target
			if found, ok = t.find(at); !ok {
				return fmt.Errorf("it needs %s, which is in none of the packages", at)
			}
		}
		_, more, err := needs(found.data)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		libs = append(libs, more...)
	}
	for at, f := range add {
		if err := o.add(view, at, f); err != nil {
			return err
		}
	}
	e.Size = int64(len(f.data))
	o.native(e.Name, f)
	o.tree[e.Name] = &item{e, f}
	o.Programs = append(o.Programs, "/"+e.Name)
	return o.parents(view, e.Name)
}

// library finds a library by its base name, the loader by its name in programs.
func (t *Tools) library(base, interp string) (string, file, bool) {
	for _, p := range t.packs {
		if path.Base(interp) == base {
			if f, ok := p.files[interp]; ok {
				return interp, f, true
			}
			if f, ok := p.files["/usr"+interp]; ok { // packages of a system whose /lib64 is a link
				return interp, f, true
			}
			continue
		}
		for name, f := range p.files {
			if path.Base(name) == base && strings.Count(path.Dir(name), "/") <= 3 {
				return name, f, true
			}
		}
	}
	return "", file{}, false
}

// find finds a file by its name, with and without /usr.
func (t *Tools) find(name string) (file, bool) {
	for _, p := range t.packs {
		for _, n := range []string{name, "/usr" + name, strings.TrimPrefix(name, "/usr")} {
			if f, ok := p.files[n]; ok {
				return f, true
			}
		}
	}
	return file{}, false
}

// add puts what the image does not have into the overlay.
func (o *Overlay) add(view *layer.View, name string, f file) error {
	real, err := view.Resolve(name)
	if err != nil {
		return err
	}
	e := layer.Entry{Name: real, Type: tar.TypeReg, Mode: 0o755, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}
	if f.target != "" {
		e.Type, e.Mode, e.Size, e.Link = tar.TypeSymlink, 0o777, 0, f.target
	} else {
		o.native(real, f)
	}
	o.names[real] = true
	o.tree[real] = &item{e, f}
	return o.parents(view, real)
}

func (o *Overlay) native(name string, f file) {
	o.sums[digest.FromBytes(f.data)] = "/" + name
	o.sizes[int64(len(f.data))] = true
}

// parents puts the directories that a name is in into the overlay, as they are in the image.
func (o *Overlay) parents(view *layer.View, name string) error {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if o.tree[dir] != nil {
			return nil
		}
		e, ok := view.Lstat("/" + dir)
		switch {
		case !ok:
			e = layer.Entry{Type: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}
			o.names[dir] = true
		case e.Type != tar.TypeDir:
			return fmt.Errorf("/%s is no directory", dir)
		}
		e.Name = dir
		o.tree[dir] = &item{entry: e}
		if dir == "." {
			return nil
		}
	}
}

// WriteTar writes it as a layer's tar.
func (o *Overlay) WriteTar(w io.Writer) error {
	names := make([]string, 0, len(o.tree))
	for name := range o.tree {
		names = append(names, name)
	}
	slices.Sort(names)
	tw := tar.NewWriter(w)
	for _, name := range names {
		i := o.tree[name]
		e := i.entry
		h := &tar.Header{
			Name: name, Typeflag: e.Type, Linkname: e.Link, Mode: e.Mode, Uid: e.UID, Gid: e.GID, Size: int64(len(i.file.data)),
			ModTime: e.ModTime, Format: tar.FormatPAX,
		}
		if e.Type == tar.TypeDir {
			h.Name += "/"
		}
		for k, v := range e.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("writing native programs: %w", err)
		}
		if _, err := tw.Write(i.file.data); err != nil {
			return fmt.Errorf("writing native programs: %w", err)
		}
	}
	return tw.Close()
}

// Native finds what of the overlay came into a layer: the name of a file that is one of its programs or libraries, wherever
// it is; of a name that only the overlay has and that the layer deletes; "" for nothing. data opens the layer's bytes.
func (o *Overlay) Native(toc *layer.TOC, data func() (layer.ReaderAtCloser, error)) (name string, err error) {
	var r layer.ReaderAtCloser
	defer func() {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, e := range toc.Entries {
		if e.Whiteout && o.names[e.Name] {
			return e.Name, nil
		}
		if e.Type != tar.TypeReg || !o.sizes[e.Size] || e.Sparse != nil {
			continue
		}
		if r == nil {
			if r, err = data(); err != nil {
				return "", err
			}
		}
		d, err := digest.FromReader(io.NewSectionReader(r, e.Offset, e.Size))
		if err != nil {
			return "", fmt.Errorf("looking for native programs in a layer: %w", err)
		}
		if _, ok := o.sums[d]; ok {
			return e.Name, nil
		}
	}
	return "", nil
}

package output

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// Threats. The tree comes from an image that may be hostile, and goes into a directory that may hold links. Every
// operation therefore goes through an os.Root of the directory that the entry lies in, and each of these is opened
// from its parent as a directory, after a link in its place was removed: no name or link leads out. Nothing here
// gets another owner than this user, so set-user-ID bits are not taken over, and no device is made.

func openLocal(s Spec, env Env) (Destination, error) {
	d, err := openDirectory(s, env, nil)
	return &localTree{spec: s, env: env, dir: d}, err
}

// localTree is the root file system as files of this user.
type localTree struct {
	spec Spec
	env  Env
	dir  directory
}

// Write implements Destination. Into a directory that is there, files are written over what has their names,
// each replaced as a whole, and everything else stays.
func (l *localTree) Write(ctx context.Context, p Product) error {
	var lost losses
	bar := track(l.env.Events, l.spec, 0)
	err := l.dir.fill(ctx, func(dir string) error {
		lost = losses{} // a second attempt begins anew
		return eachTree(ctx, p, func(view *layer.View, _ image.Image, prefix string) error {
			return writeTree(ctx, dir, prefix, view, &lost, bar)
		})
	})
	if err != nil {
		return err
	}
	bar.done()
	lost.warn(l.env.Events, l.spec.Dest)
	return nil
}

// writeTree writes a merged tree into dir, or a directory in it that is made when it is missing. The modes of these
// two are left alone.
func writeTree(ctx context.Context, dir, prefix string, view *layer.View, lost *losses, bar *progress) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	if prefix != "" {
		whole := root
		defer whole.Close()
		if err := whole.Mkdir(prefix, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if root, err = whole.OpenRoot(prefix); err != nil {
			return err
		}
	}
	t := &treeWriter{ctx: ctx, open: []level{{".", root, layer.Entry{}}}, lost: lost, bar: bar, skipped: map[string]bool{}}
	defer func() { err = errors.Join(err, t.close(err == nil)) }()
	return view.Walk("/", t.entry)
}

// treeWriter writes entries that come parents first.
type treeWriter struct {
	ctx     context.Context
	open    []level // the directory that is written into, and those above it
	lost    *losses
	bar     *progress
	skipped map[string]bool // names that were left out, for links to them
}

// level is an open directory of the tree. Its mode and times are set when it is left, for its contents need it writable.
type level struct {
	name string
	root *os.Root
	e    layer.Entry
}

func (t *treeWriter) top() *os.Root { return t.open[len(t.open)-1].root }

// leave closes the directories that name does not lie in.
func (t *treeWriter) leave(name string) error {
	for len(t.open) > 1 {
		last := t.open[len(t.open)-1]
		if strings.HasPrefix(name, last.name+"/") {
			return nil
		}
		t.open = t.open[:len(t.open)-1]
		if err := errors.Join(t.settle(last.root, ".", last.e), last.root.Close()); err != nil {
			return fmt.Errorf("%s: %w", last.name, err)
		}
	}
	return nil
}

// close leaves all directories; after an error their modes and times do not matter.
func (t *treeWriter) close(ok bool) error {
	var errs []error
	if ok {
		errs = append(errs, t.leave(""))
	}
	for _, l := range t.open {
		errs = append(errs, l.root.Close())
	}
	return errors.Join(errs...)
}

func (t *treeWriter) entry(e layer.Entry, open func() (io.ReadCloser, error)) error {
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	if e.Name == "." {
		return nil
	}
	if err := t.leave(e.Name); err != nil {
		return err
	}
	if err := t.make(e, open); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	return nil
}

func (t *treeWriter) make(e layer.Entry, open func() (io.ReadCloser, error)) error {
	if len(e.Xattrs) > 0 {
		t.lost.xattrs++
	}
	base := path.Base(e.Name)
	switch e.Type {
	case tar.TypeDir:
		return t.directory(base, e)
	case tar.TypeReg:
		return t.file(base, e, open)
	case tar.TypeSymlink:
		return t.symlink(base, e)
	case tar.TypeLink:
		return t.link(base, e)
	case tar.TypeFifo:
		return t.fifo(base, e)
	case tar.TypeChar, tar.TypeBlock:
		t.lost.devices++
		t.skipped[e.Name] = true
		return nil
	}
	return fmt.Errorf("%w %q", layer.ErrType, e.Type)
}

func (t *treeWriter) directory(base string, e layer.Entry) error {
	parent := t.top()
	info, err := parent.Lstat(base)
	switch {
	case err == nil && !info.IsDir():
		if err := parent.Remove(base); err != nil {
			return err
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		err = parent.Mkdir(base, 0o700)
	case err == nil && info.Mode().Perm()&0o700 != 0o700:
		err = parent.Chmod(base, 0o700)
	}
	if err != nil {
		return err
	}
	root, err := parent.OpenRoot(base)
	if err != nil {
		return err
	}
	t.open = append(t.open, level{e.Name, root, e})
	return nil
}

func (t *treeWriter) file(base string, e layer.Entry, open func() (io.ReadCloser, error)) (err error) {
	parent := t.top()
	name := base
	f, err := parent.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	for n := 0; errors.Is(err, fs.ErrExist) && n < 1000; n++ { // something is there: replace it as a whole
		name = tempName(base, n)
		f, err = parent.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()))
			_ = parent.Remove(name) // what is left of it is of no use, and err says why
		}
	}()
	r, err := open()
	if err != nil {
		return err
	}
	_, err = io.Copy(t.bar.writer(f), contextReader{t.ctx, r})
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if err := f.Chmod(t.mode(e)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := parent.Chtimes(name, e.ModTime, e.ModTime); err != nil {
		return err
	}
	if name == base {
		return nil
	}
	return parent.Rename(name, base)
}

// mode is that of e without what means nothing without its owner.
func (t *treeWriter) mode(e layer.Entry) fs.FileMode {
	m := fs.FileMode(e.Mode & 0o777)
	if e.Mode&0o6000 != 0 {
		t.lost.setID++
	}
	if e.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func (t *treeWriter) settle(parent *os.Root, base string, e layer.Entry) error {
	if err := parent.Chtimes(base, e.ModTime, e.ModTime); err != nil { // while the mode allows it
		return err
	}
	return parent.Chmod(base, t.mode(e))
}

// free makes sure that nothing has the name base.
func (t *treeWriter) free(base string) error {
	err := t.top().Remove(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *treeWriter) symlink(base string, e layer.Entry) error {
	if err := t.free(base); err != nil {
		return err
	}
	if err := t.top().Symlink(e.Link, base); err != nil {
		return err
	}
	return t.linkTime(base, e.ModTime)
}

func (t *treeWriter) linkTime(base string, at time.Time) error {
	err := setLinkTime(t.top(), base, at)
	if errors.Is(err, errors.ErrUnsupported) {
		t.lost.times++
		return nil
	}
	return err
}

// link makes a hard link, or a copy where there are none.
func (t *treeWriter) link(base string, e layer.Entry) error {
	if t.skipped[e.Link] {
		t.skipped[e.Name] = true
		return nil
	}
	if err := t.free(base); err != nil {
		return err
	}
	tree := t.open[0].root
	linkErr := tree.Link(e.Link, e.Name)
	if linkErr == nil {
		return nil
	}
	info, err := tree.Lstat(e.Link)
	if err != nil || !info.Mode().IsRegular() {
		return linkErr
	}
	e.Mode, e.ModTime = int64(info.Mode().Perm()), info.ModTime()
	return t.file(base, e, func() (io.ReadCloser, error) { return tree.Open(e.Link) })
}

func (t *treeWriter) fifo(base string, e layer.Entry) error {
	if err := t.free(base); err != nil {
		return err
	}
	err := makeFifo(t.top(), base)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		t.lost.fifos++
		t.skipped[e.Name] = true
		return nil
	}
	if err != nil {
		return err
	}
	return t.settle(t.top(), base, e)
}

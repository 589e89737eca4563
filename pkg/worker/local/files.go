package local

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// Files gives the files of a result. It is for looking into it, not for reading much: every open reads tables of contents.
func (w *Worker) Files(r solve.Result) (fs.FS, error) { return resultFS{w, r}, nil }

type resultFS struct {
	w *Worker
	r solve.Result
}

// Open implements fs.FS: regular files and directories without their entries.
func (f resultFS) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	view, err := f.w.View(context.Background(), f.r.Layers)
	if err != nil {
		return fail(err)
	}
	e, ok := view.Stat(name)
	if !ok {
		_ = view.Close()
		return fail(fs.ErrNotExist)
	}
	out := &resultFile{e: e, view: view, data: io.NopCloser(strings.NewReader(""))}
	if e.Type == tar.TypeReg || e.Type == tar.TypeLink {
		if out.data, err = view.Open(name); err != nil {
			_ = view.Close()
			return fail(err)
		}
	}
	return out, nil
}

type resultFile struct {
	e    layer.Entry
	view *layer.View
	data io.ReadCloser
}

func (f *resultFile) Read(p []byte) (int, error) { return f.data.Read(p) }

func (f *resultFile) Close() error {
	if err := f.data.Close(); err != nil {
		_ = f.view.Close()
		return fmt.Errorf("closing %s: %w", f.e.Name, err)
	}
	return f.view.Close()
}

func (f *resultFile) Stat() (fs.FileInfo, error) { return resultInfo{f.e}, nil }

type resultInfo struct{ e layer.Entry }

func (i resultInfo) Name() string       { return path.Base(i.e.Name) }
func (i resultInfo) Size() int64        { return i.e.Size }
func (i resultInfo) ModTime() time.Time { return i.e.ModTime }
func (i resultInfo) IsDir() bool        { return i.e.Type == tar.TypeDir }
func (i resultInfo) Sys() any           { return nil }

func (i resultInfo) Mode() fs.FileMode {
	mode := fs.FileMode(i.e.Mode & 0o777)
	switch i.e.Type {
	case tar.TypeReg, tar.TypeLink:
	case tar.TypeDir:
		mode |= fs.ModeDir
	case tar.TypeSymlink:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

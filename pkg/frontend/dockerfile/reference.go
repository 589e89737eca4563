package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// reference is what a definition will be when it is solved. It is solved when the frontend looks into it.
type reference struct {
	b      *bridge
	vertex *graph.Vertex

	once  sync.Once
	files fs.FS
	err   error
}

var _ client.Reference = (*reference)(nil)

// open gives the files of the reference: a context of this machine is read where it is.
func (r *reference) open(ctx context.Context) (fs.FS, error) {
	r.once.Do(func() {
		if r.vertex == nil {
			r.files = emptyFS{}
			return
		}
		local, ok := r.vertex.Op.(graph.Local)
		if !ok {
			r.files, r.err = r.b.o.Host.Open(ctx, r.vertex, r.b.in.dirs)
			return
		}
		dir, ok := r.b.in.dirs[local.Context]
		switch {
		case !ok:
			r.err = fmt.Errorf("%w: there is no context %q", ErrInput, local.Context)
		case dir == "":
			r.files = emptyFS{}
		default:
			r.files = dirFS(dir)
		}
	})
	return r.files, r.err
}

// emptyFS has nothing in it.
type emptyFS struct{}

func (emptyFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// dirFS opens files inside a directory. It holds no descriptor between them, and never waits for one.
type dirFS string

func (d dirFS) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// clean is a path of the frontend as io/fs wants it.
func clean(name string) string {
	return strings.TrimPrefix(path.Join("/", name), "/")
}

// ReadFile implements client.Reference. The frontend takes every error of an ignore file for "there is none"; here one
// that is there and cannot be read fails the build: what it was to keep out would get in.
func (r *reference) ReadFile(ctx context.Context, req client.ReadRequest) ([]byte, error) {
	data, err := r.read(ctx, req)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(req.Filename, ".dockerignore") {
		r.b.refuse(err)
	}
	return data, err
}

func (r *reference) read(ctx context.Context, req client.ReadRequest) (_ []byte, err error) {
	files, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	f, err := files.Open(clean(req.Filename))
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", req.Filename, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", req.Filename, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("failed to read %s: it is no regular file", req.Filename)
	}
	in := io.Reader(f)
	if req.Range != nil {
		if _, err := io.CopyN(io.Discard, in, int64(req.Range.Offset)); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("failed to read %s: %w", req.Filename, err)
		}
		if req.Range.Length > 0 {
			in = io.LimitReader(in, int64(req.Range.Length))
		}
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", req.Filename, err)
	}
	return data, nil
}

// StatFile implements client.Reference.
func (r *reference) StatFile(ctx context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	files, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	info, err := fs.Stat(files, clean(req.Path))
	if err != nil {
		return nil, err
	}
	return stat(req.Path, info), nil
}

// ReadDir implements client.Reference.
func (r *reference) ReadDir(ctx context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	files, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	name := clean(req.Path)
	if name == "" {
		name = "."
	}
	entries, err := fs.ReadDir(files, name)
	if err != nil {
		return nil, err
	}
	var out []*fstypes.Stat
	for _, e := range entries {
		if req.IncludePattern != "" {
			if ok, err := path.Match(req.IncludePattern, e.Name()); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, stat(e.Name(), info))
	}
	return out, nil
}

func stat(name string, info fs.FileInfo) *fstypes.Stat {
	return &fstypes.Stat{Path: name, Mode: uint32(info.Mode()), Size: info.Size(), ModTime: info.ModTime().UnixNano()}
}

// Evaluate implements client.Reference: everything is solved together, at the end.
func (r *reference) Evaluate(context.Context) error { return nil }

// ToState implements client.Reference.
func (r *reference) ToState() (llb.State, error) { return llb.State{}, errors.ErrUnsupported }

package local

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/moby/patternmatcher"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// local makes a layer of files of a context, for bind mounts. Owners, times and the umask of the checkout are
// left out, so that equal files are an equal layer everywhere.
func (w *Worker) local(ctx context.Context, op graph.Local) (_ solve.Result, err error) {
	root, err := w.contextRoot(op.Context)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	ignore, err := patternmatcher.New(op.Exclude)
	if err != nil {
		return solve.Result{}, fmt.Errorf("ignore patterns of context %q: %w", op.Context, err)
	}
	return w.change(ctx, solve.Result{}, time.Unix(0, 0), func(b *layer.Builder, _ *layer.View) error {
		for _, p := range op.Paths {
			err := fs.WalkDir(root.FS(), path.Clean(p), func(name string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if err := context.Cause(ctx); err != nil {
					return err
				}
				skip, err := ignore.MatchesOrParentMatches(name)
				if err != nil {
					return fmt.Errorf("ignore patterns of context %q: %w", op.Context, err)
				}
				if skip && name != "." {
					if d.IsDir() && !ignore.Exclusions() {
						return fs.SkipDir
					}
					return nil
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				e := layer.Entry{Name: name, Mode: 0o644, ModTime: time.Unix(0, 0)}
				var open func() (io.ReadCloser, error)
				switch {
				case d.IsDir():
					e.Type, e.Mode = tar.TypeDir, 0o755
				case d.Type()&fs.ModeSymlink != 0:
					e.Type, e.Mode = tar.TypeSymlink, 0o777
					if e.Link, err = root.Readlink(name); err != nil {
						return err
					}
				case d.Type().IsRegular():
					e.Type, e.Size = tar.TypeReg, info.Size()
					if executable(info.Mode()) {
						e.Mode = 0o755
					}
					open = func() (io.ReadCloser, error) { return root.Open(name) }
				default:
					return fmt.Errorf("%q of context %q is a %s: only files, directories and symlinks can be mounted", name, op.Context, d.Type())
				}
				return b.Add(e, open)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

package local

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// checkedOut is what is remembered of a commit.
type checkedOut struct {
	Commit string      `json:"commit"`
	Object []byte      `json:"object"` // of the commit, as git keeps it
	Layer  solve.Layer `json:"layer"`
}

const gitKind = "git"

// git makes a layer of a commit.
func (w *Worker) git(ctx context.Context, op graph.Git) (solve.Result, error) {
	got, err := w.commitOf(ctx, op)
	if err != nil {
		return solve.Result{}, err
	}
	return solve.Result{Layers: []solve.Layer{got.Layer}}, nil
}

// commitOf asks the remote for the commit each time, and for its files once.
func (w *Worker) commitOf(ctx context.Context, op graph.Git) (got checkedOut, err error) {
	dir, err := w.scratch()
	if err != nil {
		return got, err
	}
	req := source.GitRequest{
		Remote: op.Remote, Ref: op.Ref, Checksum: op.Checksum, ByCommit: op.ByCommit, KeepGitDir: op.KeepGitDir,
		NoSubmodule: op.NoSubmodule, KnownHosts: op.KnownHosts,
	}
	if req.Authorization, err = w.gitAuthorization(op); err != nil {
		return got, err
	}
	if op.SSHAgent != "" {
		req.SSHSocket, _ = w.agent(op.SSHAgent)
	}
	g, err := source.NewGit(dir, req)
	if err != nil {
		return got, err
	}
	commit, err := g.Resolve(ctx)
	if err != nil {
		return got, err
	}
	same := op
	same.TokenSecret, same.HeaderSecret, same.SSHAgent, same.KnownHosts = "", "", "", ""
	same.Checksum = commit
	key, err := opKey(same)
	if err != nil {
		return got, err
	}
	if w.recall(gitKind, key, &got, func() []solve.Layer { return []solve.Layer{got.Layer} }) {
		return got, nil
	}
	when, err := g.Checkout(ctx, commit)
	if err != nil {
		return got, err
	}
	r, err := w.checkout(ctx, g.Tree(), op, when)
	if err != nil {
		return got, err
	}
	got = checkedOut{Commit: commit, Layer: r.Layers[0]}
	if got.Object, err = g.Object(ctx, commit); err != nil {
		return got, err
	}
	return got, w.remember(gitKind, key, got, got.Layer.Kept())
}

// checkout makes a layer of a work tree. Times are the commit's, so that equal commits are equal layers.
func (w *Worker) checkout(ctx context.Context, tree string, op graph.Git, when time.Time) (_ solve.Result, err error) {
	top, err := os.OpenRoot(tree)
	if err != nil {
		return solve.Result{}, err
	}
	root := top
	if sub := strings.Trim(path.Clean("/"+op.Subdir), "/"); sub != "" {
		root, err = top.OpenRoot(sub)
		if err := errors.Join(err, top.Close()); err != nil {
			return solve.Result{}, fmt.Errorf("directory %q of the repository: %w", op.Subdir, err)
		}
	}
	exclude := []string{"**/.git"}
	if op.KeepGitDir {
		exclude = nil
	}
	f, err := source.OpenFiles(ctx, root, source.FilesOptions{Exclude: exclude}, nil)
	if err != nil {
		return solve.Result{}, errors.Join(err, root.Close())
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	view, err := layer.NewView([]layer.Source{f.Source()})
	if err != nil {
		return solve.Result{}, err
	}
	return w.change(ctx, solve.Result{}, when, func(b *layer.Builder, _ *layer.View) error {
		return view.Walk("/", func(e layer.Entry, open func() (io.ReadCloser, error)) error {
			if e.Name == "." {
				return nil
			}
			e.ModTime = when
			switch { // whatever the umask of who builds
			case e.Type == tar.TypeSymlink:
			case e.Type == tar.TypeDir, e.Mode&0o100 != 0:
				e.Mode = 0o755
			default:
				e.Mode = 0o644
			}
			return b.Add(e, open)
		})
	})
}

// gitAuthorization is the header for a remote over http, from the first secret there is.
func (w *Worker) gitAuthorization(op graph.Git) (string, error) {
	u, err := url.Parse(op.Remote)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || w.o.Secret == nil {
		return "", nil //nolint:nilerr // the scp form is no URL
	}
	for _, s := range []struct {
		id   string
		form func(string) string
	}{{op.HeaderSecret, func(s string) string { return s }}, {op.TokenSecret, source.BasicToken}} {
		if s.id == "" {
			continue
		}
		for _, id := range []string{s.id + "." + u.Host, s.id} {
			data, ok, err := w.o.Secret(id)
			if err != nil {
				return "", fmt.Errorf("secret %q: %w", id, err)
			}
			if text := strings.TrimSpace(string(data)); ok && text != "" {
				return s.form(text), nil
			}
		}
	}
	return "", nil
}

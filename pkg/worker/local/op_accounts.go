package local

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// maxAccounts bounds the size of an /etc/passwd that is edited.
const maxAccounts = 16 << 20

// accounts makes the layer with /etc/passwd and /etc/group after op.
func (w *Worker) accounts(ctx context.Context, op graph.Accounts, below solve.Result) (solve.Result, error) {
	mtime := time.Unix(op.Time, 0)
	return w.change(ctx, below, mtime, func(b *layer.Builder, view *layer.View) error {
		passwd, err := readSmall(view, "/etc/passwd")
		if err != nil {
			return fmt.Errorf("%s: %w", op.At, err)
		}
		group, err := readSmall(view, "/etc/group")
		if err != nil {
			return fmt.Errorf("%s: %w", op.At, err)
		}
		newPasswd, newGroup, err := op.Apply(passwd, group)
		if err != nil {
			return fmt.Errorf("%s: %w", op.At, err)
		}
		for name, data := range map[string][]byte{"/etc/passwd": newPasswd, "/etc/group": newGroup} {
			e := layer.Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: mtime}
			if old, ok := view.Stat(name); ok {
				e.Mode, e.UID, e.GID, e.Xattrs = old.Mode, old.UID, old.GID, old.Xattrs
			}
			if err := b.Add(e, openBytes(data)); err != nil {
				return fmt.Errorf("%s: %w", op.At, err)
			}
		}
		return nil
	})
}

// readSmall reads a file of the image; one that is not there is empty.
func readSmall(view *layer.View, name string) (_ []byte, err error) {
	e, ok := view.Stat(name)
	if !ok {
		return nil, nil
	}
	if e.Size > maxAccounts {
		return nil, fmt.Errorf("%s is %d bytes: more than an accounts file can be", name, e.Size)
	}
	r, err := view.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

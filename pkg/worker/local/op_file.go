package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/fileop"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// fileKey is the identity of the rootfs, the content of exactly what is copied, and the accounts of inputs that names
// of owners are looked up in.
func (w *Worker) fileKey(ctx context.Context, op graph.File, inputs []solve.Result) (digest.Digest, error) {
	parts := []digest.Digest{inputAt(inputs, 0).Identity()}
	if w.o.Epoch != nil {
		parts = append(parts, digest.FromString(fmt.Sprint("epoch ", *w.o.Epoch)))
	}
	accounts := map[int]bool{}
	for _, a := range op.Actions {
		for _, n := range names(a) {
			if n.Input > 0 && !accounts[n.Input] {
				accounts[n.Input] = true
				d, err := w.accountsDigest(ctx, inputAt(inputs, n.Input))
				if err != nil {
					return "", err
				}
				parts = append(parts, d)
			}
		}
		if a.Copy == nil || a.Copy.Input <= 0 {
			continue
		}
		d, err := w.copyHash(ctx, *a.Copy, inputAt(inputs, a.Copy.Input))
		if err != nil {
			return "", err
		}
		parts = append(parts, d)
	}
	return digestOf(parts...), nil
}

var _ solve.Prefixer = (*Worker)(nil)

// Prefix implements solve.Prefixer: the files of a directory of this machine are read for a key.
func (w *Worker) Prefix(_ context.Context, v *graph.Vertex, inputs []solve.Result) (digest.Digest, error) {
	switch op := v.Op.(type) {
	case graph.File:
		for _, a := range op.Actions {
			if a.Copy != nil && a.Copy.Input > 0 && w.hasVirtual(inputAt(inputs, a.Copy.Input)) {
				return inputAt(inputs, 0).Identity(), nil
			}
		}
	case graph.Layer:
		for _, e := range op.Entries {
			if e.Source != "" {
				return inputAt(inputs, 0).Identity(), nil
			}
		}
	}
	return "", nil
}

// names are the accounts that an action looks up.
func names(a graph.FileAction) (out []graph.Account) {
	var o *graph.Owner
	switch {
	case a.Copy != nil:
		o = a.Copy.Owner
	case a.Mkfile != nil:
		o = a.Mkfile.Owner
	case a.Mkdir != nil:
		o = a.Mkdir.Owner
	case a.Symlink != nil:
		o = a.Symlink.Owner
	}
	if o == nil {
		return nil
	}
	for _, n := range []*graph.Account{o.User, o.Group} {
		if n != nil && n.Name != "" {
			out = append(out, *n)
		}
	}
	return out
}

const (
	hashKind  = "hash" // of content in layers, which never changes
	hashForms = "1"    // changes when what a hash is made of does
)

// memo gives the digest of something in r, which is computed once for all builds unless r is no layers in the store.
func (w *Worker) memo(r solve.Result, what any, compute func() (digest.Digest, error)) (digest.Digest, error) {
	if w.hasVirtual(r) {
		return compute()
	}
	text, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	key := digestOf(hashForms, r.Identity(), digest.FromBytes(text)).Encoded()
	if rec, err := w.o.Store.GetRecord(hashKind, key); err == nil {
		if d := digest.Digest(rec.Data); d.Validate() == nil {
			return d, nil
		}
	}
	d, err := compute()
	if err != nil {
		return "", err
	}
	return d, w.o.Store.PutRecord(hashKind, key, store.Record{Data: []byte(d)})
}

func (w *Worker) copyHash(ctx context.Context, c graph.FileCopy, from solve.Result) (digest.Digest, error) {
	what := c // what selects, and nothing of where it goes
	what.Input, what.Dest, what.Owner, what.Mode, what.ModeText, what.Time = 0, "", nil, nil, "", nil
	return w.memo(from, what, func() (_ digest.Digest, err error) {
		view, err := w.View(ctx, from.Layers)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, view.Close()) }()
		return fileop.Hash(ctx, view, c)
	})
}

func (w *Worker) accountsDigest(ctx context.Context, r solve.Result) (digest.Digest, error) {
	return w.memo(r, "accounts", func() (_ digest.Digest, err error) {
		view, err := w.View(ctx, r.Layers)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, view.Close()) }()
		var parts []digest.Digest
		for _, name := range []string{"/etc/passwd", "/etc/group"} {
			if _, ok := view.Stat(name); !ok {
				parts = append(parts, "none")
				continue
			}
			data, err := readSmall(view, name)
			if err != nil {
				return "", err
			}
			parts = append(parts, digest.FromBytes(data))
		}
		return digestOf(parts...), nil
	})
}

// file makes the layer of a file operation straight from the layers it reads.
func (w *Worker) file(ctx context.Context, op graph.File, inputs []solve.Result) (_ solve.Result, err error) {
	below := inputAt(inputs, 0)
	views := make(fileop.Inputs, max(len(inputs), 1))
	defer func() {
		for _, v := range views {
			if v != nil {
				err = errors.Join(err, v.Close())
			}
		}
	}()
	places := placings{}
	for i := range views {
		if views[i], err = w.view(ctx, inputAt(inputs, i).Layers, places); err != nil {
			return solve.Result{}, err
		}
	}
	var now time.Time
	if w.o.Epoch != nil {
		now = time.Unix(*w.o.Epoch, 0)
	}
	u := layer.NewUpper(views[0], now)
	defer func() { err = errors.Join(err, u.Close()) }()
	if err := fileop.Apply(ctx, u, op, views, fileop.Options{Spool: w.scratch}); err != nil {
		return solve.Result{}, err
	}
	l, err := w.commit(ctx, func(out io.Writer) error { return u.WriteTo(ctx, out) })
	if err != nil {
		return solve.Result{}, err
	}
	if l.Packed == nil { // else there is nothing to read at these places
		places.done(l.DiffID)
	}
	return below.With(l), nil
}

// inputAt is an input; one that is not there is scratch.
func inputAt(inputs []solve.Result, i int) solve.Result {
	if i < 0 || i >= len(inputs) {
		return solve.Result{}
	}
	return inputs[i]
}

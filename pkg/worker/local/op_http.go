package local

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// ErrChecksum reports content that is not what its checksum says.
var ErrChecksum = errors.New("checksum does not match")

// fetched is what is remembered of a URL.
type fetched struct {
	ETag         string        `json:"etag,omitempty"`
	LastModified string        `json:"lastModified,omitempty"`
	Sum          digest.Digest `json:"sum"`
	Layer        solve.Layer   `json:"layer"`
}

const httpKind = "http"

// http makes a layer with one file.
func (w *Worker) http(ctx context.Context, op graph.HTTP) (solve.Result, error) {
	got, err := w.download(ctx, op)
	if err != nil {
		return solve.Result{}, err
	}
	return solve.Result{Layers: []solve.Layer{got.Layer}}, nil
}

// download brings a file, unless it was brought before and did not change since.
func (w *Worker) download(ctx context.Context, op graph.HTTP) (got fetched, err error) {
	key, err := opKey(op.ForKey())
	if err != nil {
		return got, err
	}
	var old fetched
	known := w.recall(httpKind, key, &old, func() []solve.Layer { return []solve.Layer{old.Layer} })
	if known && op.Checksum != "" && old.Sum == digest.Digest(op.Checksum) {
		return old, nil
	}
	req := source.HTTPRequest{URL: op.URL, Header: op.Headers}
	if known {
		req.ETag, req.LastModified = old.ETag, old.LastModified
	}
	if op.AuthSecret != "" && w.o.Secret != nil {
		data, ok, err := w.o.Secret(op.AuthSecret)
		if err != nil {
			return got, fmt.Errorf("secret %q: %w", op.AuthSecret, err)
		}
		if ok {
			req.Authorization = strings.TrimSpace(string(data))
		}
	}
	resp, err := source.Fetch(ctx, req)
	if err != nil {
		return got, err
	}
	if resp.Body == nil {
		return old, nil
	}
	got = fetched{ETag: resp.ETag, LastModified: resp.LastModified}
	file, size, sum, err := w.spooled(ctx, resp.Body)
	if err != nil {
		return got, fmt.Errorf("fetching %s: %w", op.URL, err)
	}
	defer os.Remove(file) //nolint:errcheck // it goes with the scratch directory anyway
	if op.Checksum != "" && digest.Digest(op.Checksum) != sum {
		return got, fmt.Errorf("%w: %s is %s, not %s", ErrChecksum, op.URL, sum, op.Checksum)
	}
	mode := op.Mode
	if mode == 0 {
		mode = 0o600
	}
	r, err := w.change(ctx, solve.Result{}, time.Unix(0, 0), func(b *layer.Builder, _ *layer.View) error {
		e := layer.Entry{
			Name: op.Filename, Type: tar.TypeReg, Mode: int64(mode), UID: op.UID, GID: op.GID, Size: size, ModTime: resp.ModTime(),
		}
		return b.Add(e, func() (io.ReadCloser, error) { return os.Open(file) })
	})
	if err != nil {
		return got, err
	}
	got.Sum, got.Layer = sum, r.Layers[0]
	return got, w.remember(httpKind, key, got, got.Layer.Kept())
}

// spooled copies r to a file of the scratch directory and closes it.
func (w *Worker) spooled(ctx context.Context, r io.ReadCloser) (file string, size int64, sum digest.Digest, err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	dir, err := w.scratch()
	if err != nil {
		return "", 0, "", err
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return "", 0, "", err
	}
	h := digest.Canonical.Digester()
	size, err = io.Copy(io.MultiWriter(f, h.Hash()), contextReader{ctx, r})
	return f.Name(), size, h.Digest(), errors.Join(err, f.Close())
}

// opKey is the name of a record about op.
func opKey(op graph.Op) (string, error) {
	text, err := json.Marshal(op)
	if err != nil {
		return "", err
	}
	return digest.FromBytes(text).Encoded(), nil
}

// recall reads what remember wrote, unless layers that it names are gone.
func (w *Worker) recall(kind, key string, into any, layers func() []solve.Layer) bool {
	rec, err := w.o.Store.GetRecord(kind, key)
	if err != nil || json.Unmarshal(rec.Data, into) != nil {
		return false
	}
	for _, l := range layers() {
		if _, err := w.o.Store.Stat(l.Kept()); err != nil {
			return false
		}
	}
	return true
}

func (w *Worker) remember(kind, key string, what any, blobs ...digest.Digest) error {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return w.o.Store.PutRecord(kind, key, store.Record{Data: data, Blobs: blobs})
}

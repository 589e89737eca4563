package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// CompressedKind is the kind of the store's records that say which blob a layer is in a compression.
const CompressedKind = "compressed"

// Press says in which compressions the layer that a vertex makes will be needed, so that it is compressed while it is written, and
// whether nothing is known that will read the layer itself: a large one is kept compressed only then.
type Press func(v *graph.Vertex) (all []layer.Compression, only bool)

// SetPress gives the worker a Press once the graph is known.
func (w *Worker) SetPress(p Press) { w.press.Store(&p) }

type pressKey struct{}

// pressure is what a Press said.
type pressure struct {
	all  []layer.Compression
	only bool
}

// pressing gives ctx the compressions for the layer of v.
func (w *Worker) pressing(ctx context.Context, v *graph.Vertex) context.Context {
	if p := w.press.Load(); p != nil {
		if all, only := (*p)(v); len(all) > 0 {
			return context.WithValue(ctx, pressKey{}, pressure{all, only})
		}
	}
	return ctx
}

// notPressing is for layers on the way that are not that of the vertex.
func notPressing(ctx context.Context) context.Context {
	return context.WithValue(ctx, pressKey{}, pressure{})
}

func pressOf(ctx context.Context) pressure {
	p, _ := ctx.Value(pressKey{}).(pressure)
	return p
}

// pressed is a compressed form on its way into the store.
type pressed struct {
	form layer.Compression
	blob *store.Ingest // nil: it is made later
}

// abort drops what was not committed.
func (p *pressed) abort() {
	if p.blob != nil {
		p.blob.Abort()
	}
}

// commit keeps it, and that it is the layer diffID.
func (p *pressed) commit(ctx context.Context, w *Worker, diffID digest.Digest) (ocispec.Descriptor, error) {
	mediaType, err := p.form.MediaType(false)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := p.blob.Commit(ctx, mediaType)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := w.facts().PutUnpacked(desc.Digest, diffID); err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := json.Marshal(desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("recording a compressed layer: %w", err)
	}
	return desc, w.o.Store.PutRecord(CompressedKind, compressedKey(diffID, p.form), store.Record{Data: data, Blobs: []digest.Digest{desc.Digest}})
}

func compressedKey(diffID digest.Digest, c layer.Compression) string {
	return diffID.Encoded() + "-" + c.String()
}

// Compressed gives the compressed form of a layer that the store has.
func (w *Worker) Compressed(diffID digest.Digest, c layer.Compression) (desc ocispec.Descriptor, ok bool) {
	rec, err := w.o.Store.GetRecord(CompressedKind, compressedKey(diffID, c))
	if err != nil || json.Unmarshal(rec.Data, &desc) != nil {
		return ocispec.Descriptor{}, false
	}
	_, err = w.o.Store.Stat(desc.Digest)
	return desc, err == nil
}

// Compress makes the compressed form of a layer.
func (w *Worker) Compress(ctx context.Context, l solve.Layer, c layer.Compression) (_ ocispec.Descriptor, err error) {
	r, err := w.openLayer(ctx, l)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	blob, err := w.o.Store.Ingest(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p := &pressed{form: c, blob: blob}
	defer p.abort()
	if err := layer.Compress(ctx, p.blob, r, c); err != nil {
		return ocispec.Descriptor{}, err
	}
	return p.commit(ctx, w, l.DiffID)
}

// pressFrom is how large a layer is that is compressed while it is written. A smaller one is compressed in the background when it
// is needed: the steps after it do not wait for that.
const pressFrom = 256 << 10

var pressHeads = sync.Pool{New: func() any { return new([pressFrom]byte) }}

// packedFrom is the default of Options.PackedFrom.
const packedFrom = 128 << 20

// sizes are those from which layers are compressed while they are written, and kept in no other form. The second is not less than
// the first.
func (w *Worker) sizes() (press int, packed int64) {
	if w.o.PackedFrom <= 0 {
		return pressFrom, packedFrom
	}
	return int(min(pressFrom, w.o.PackedFrom)), w.o.PackedFrom
}

// raw is a layer's uncompressed form on its way into the store, unless it is large and only wanted compressed.
type raw struct {
	*store.Ingest
	only bool  // see Press
	most int64 // bytes from which it is not kept
	size int64
}

// Write implements io.Writer.
func (r *raw) Write(p []byte) (int, error) {
	if r.size += int64(len(p)); r.only && r.size >= r.most {
		if err := r.DigestOnly(); err != nil {
			return 0, err
		}
	}
	return r.Ingest.Write(p)
}

// end commits it; dropped says that it was not kept.
func (r *raw) end(ctx context.Context) (desc ocispec.Descriptor, dropped bool, err error) {
	if r.only && r.size >= r.most {
		desc, err = r.Finish(uncompressed)
		return desc, true, err
	}
	desc, err = r.Commit(ctx, uncompressed)
	return desc, false, err
}

// fanPressed adds readers that compress what is written to f.
func (w *Worker) fanPressed(ctx context.Context, f *fan, forms []layer.Compression) []*pressed {
	all := make([]*pressed, len(forms))
	from, _ := w.sizes()
	for i, c := range forms {
		p := &pressed{form: c}
		all[i] = p
		f.add(func(r io.Reader) (err error) {
			head := pressHeads.Get().(*[pressFrom]byte) //nolint:forcetypeassert // the pool holds nothing else
			defer pressHeads.Put(head)
			n, err := io.ReadFull(r, head[:from])
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if p.blob, err = w.o.Store.Ingest(ctx); err != nil {
				return err
			}
			return layer.Compress(ctx, p.blob, io.MultiReader(bytes.NewReader(head[:n]), r), c)
		})
	}
	return all
}

// estargzRecord is a layer as eStargz.
type estargzRecord struct {
	Blob   ocispec.Descriptor `json:"blob"`
	DiffID digest.Digest      `json:"diffID"` // of the layer with its table of contents
}

// Estargz gives a layer as eStargz, making it when the store has it not. Its DiffID is another one than l's.
func (w *Worker) Estargz(ctx context.Context, l solve.Layer, c layer.Compression) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	key := compressedKey(l.DiffID, c)
	if rec, err := w.o.Store.GetRecord(CompressedKind, key); err == nil {
		var known estargzRecord
		if json.Unmarshal(rec.Data, &known) == nil && known.DiffID != "" {
			return known.Blob, known.DiffID, nil
		}
	}
	mediaType, err := c.MediaType(false)
	if err != nil {
		return desc, "", err
	}
	blob, err := w.o.Store.Ingest(ctx)
	if err != nil {
		return desc, "", err
	}
	defer blob.Abort()
	info, err := layer.Estargz(ctx, blob, func() (io.ReadCloser, error) { return w.openLayer(ctx, l) }, c)
	if err != nil {
		return desc, "", err
	}
	if desc, err = blob.Commit(ctx, mediaType); err != nil {
		return desc, "", err
	}
	desc.Annotations = info.Annotations()
	if err := w.facts().PutUnpacked(desc.Digest, info.DiffID); err != nil {
		return desc, "", err
	}
	data, err := json.Marshal(estargzRecord{desc, info.DiffID})
	if err != nil {
		return desc, "", fmt.Errorf("recording a compressed layer: %w", err)
	}
	return desc, info.DiffID, w.o.Store.PutRecord(CompressedKind, key, store.Record{Data: data, Blobs: []digest.Digest{desc.Digest}})
}

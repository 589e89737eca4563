package build

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
	"github.com/manifestctl/manifestctl/pkg/verify"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// finisher makes images and the index of solved targets and hands them to the outputs.
type finisher struct {
	store    *store.Store
	worker   *local.Worker
	build    *graph.Build
	results  []solve.Result // of build.Targets
	parallel int
	epoch    *int64
	verify   VerifyMode
	allow    []verify.Allow
	inline   bool // records go into the images' configs
	steps    *steps
	events   event.Sink
	stage    string // see Request
	clock    func() time.Time
	env      transfer.Env

	mu     sync.Mutex // guards what follows
	places map[digest.Digest][]ref.Ref
	made   map[content]func() (image.Layer, error)
}

// content is one layer in one form: what is made once.
type content struct {
	id    digest.Digest
	form  form
	epoch int64
}

// once gives a layer in a form, made by whoever asks first.
func (f *finisher) once(ctx context.Context, l solve.Layer, form form, epoch *int64) func() (image.Layer, error) {
	id := content{id: digestKey(l), form: form}
	if epoch != nil && form.rewrite {
		id.epoch = *epoch
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	get, ok := f.made[id]
	if !ok {
		if f.made == nil {
			f.made = map[content]func() (image.Layer, error){}
		}
		get = sync.OnceValues(func() (image.Layer, error) { return f.layer(ctx, l, form, epoch) })
		f.made[id] = get
	}
	return get
}

// setPlaces remembers repositories that hold a layer which was not fetched.
func (f *finisher) setPlaces(d digest.Digest, places []ref.Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.places == nil {
		f.places = map[digest.Digest][]ref.Ref{}
	}
	f.places[d] = places
}

func (f *finisher) placesOf(d digest.Digest) []ref.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.places[d]
}

// form is what distinguishes the bytes of one output from another's.
type form struct {
	compression layer.Compression
	force       bool
	docker      bool
	rewrite     bool
}

// formOf returns the form that an output needs. A tree needs no compressed layers.
func formOf(s output.Spec) form {
	f := form{compression: s.Compression, force: s.Force, docker: s.DockerTypes, rewrite: s.Rewrite}
	if s.Type == "local" || s.Type == "tar" {
		f = form{compression: layer.Compression{Algorithm: "uncompressed"}, rewrite: s.Rewrite}
	}
	return f
}

// write makes every form once and writes every output.
func (f *finisher) write(ctx context.Context, plans []plan) (Result, error) {
	made := map[form]output.Product{}
	var first Result
	for i, p := range plans {
		form := formOf(p.spec)
		product, ok := made[form]
		if !ok {
			var err error
			if product, err = f.product(ctx, form); err != nil {
				return Result{}, err
			}
			made[form] = product
			if i == 0 { // contents are the same in all forms
				if err := f.gate(ctx, product.Images); err != nil {
					return Result{}, err
				}
			}
		}
		product.Names = p.names
		if len(product.Names) == 0 && p.spec.Type == "image" && !p.spec.Push {
			product.Names = []ref.Ref{untagged(product.Root.Digest)}
		}
		if err := f.deliver(ctx, p, &product); err != nil {
			return Result{}, err
		}
		if i == 0 {
			first = Result{Root: product.Root, Raw: product.Raw, Images: product.Images, Names: product.Names}
		}
		if f.stage != "" && p.pushes() { // what was written under which names is of more interest
			products, err := f.staged(product)
			if err != nil {
				return Result{}, err
			}
			first.Names = nil
			for _, one := range products {
				first.Names = append(first.Names, one.Names...)
			}
		}
	}
	return first, nil
}

// deliver writes one output, as a vertex of its own in the progress.
func (f *finisher) deliver(ctx context.Context, p plan, product *output.Product) error {
	name := "exporting to " + p.spec.Type
	if p.spec.Dest != "" {
		name += " " + p.spec.Dest
	}
	e := event.Event{Kind: event.VertexStart, ID: name, Name: name}
	f.events.Emit(e)
	err := f.writeTo(ctx, p, product)
	e.Kind = event.VertexDone
	if err != nil {
		e.Error, e.Canceled = err.Error(), context.Cause(ctx) != nil
		err = fmt.Errorf("%s: %w", name, err)
	}
	f.events.Emit(e)
	return err
}

// writeTo writes one output. Where it adds to what names hold, product's root is what they became.
func (f *finisher) writeTo(ctx context.Context, p plan, product *output.Product) (err error) {
	switch {
	case p.append:
		product.Root, product.Raw, err = f.append(ctx, p, *product)
		return err
	case f.stage == "" || !p.pushes():
		return p.dest.Write(ctx, *product)
	}
	products, err := f.staged(*product)
	for _, one := range products {
		if err == nil {
			err = p.dest.Write(ctx, one)
		}
	}
	return err
}

// untagged names a result in the store that was given no name.
func untagged(d digest.Digest) ref.Ref {
	return ref.Ref{Kind: ref.Store, Name: "untagged", Tag: d.Encoded()[:12]}
}

// product assembles the images of all targets and their index in one form and puts them into the store.
func (f *finisher) product(ctx context.Context, form form) (output.Product, error) {
	p := output.Product{Content: f.worker, Epoch: f.epochOf(0), Mounts: map[digest.Digest][]ref.Ref{}, View: f.view}
	layers, err := f.layers(ctx, form)
	if err != nil {
		return output.Product{}, err
	}
	var children []ocispec.Descriptor
	for i, t := range f.build.Targets {
		records, err := f.inlineRecords(i, form)
		if err != nil {
			return output.Product{}, err
		}
		img, err := image.Assemble(image.Input{
			Platform: t.Platform, Base: f.results[i].Config, Frontend: t.Image, Layers: layers[i], Patch: t.Config,
			Annotations: t.Annotations, Created: t.Created, Docker: form.docker,
			Extra: records,
		})
		if err != nil {
			return output.Product{}, fmt.Errorf("assembling the image of %s: %w", t.Platform, err)
		}
		if err := f.put(ctx, img.CfgDesc, img.Config); err != nil {
			return output.Product{}, err
		}
		if err := f.put(ctx, img.Desc, img.Manifest); err != nil {
			return output.Product{}, err
		}
		p.Images = append(p.Images, img)
		entry := img.Desc
		entry.Annotations = t.EntryAnnotations
		children = append(children, entry)
		for _, l := range img.Layers {
			p.Mounts[l.Digest] = append(p.Mounts[l.Digest], f.placesOf(l.Digest)...)
		}
		for _, l := range f.results[i].Layers {
			for _, text := range l.From {
				if r, err := ref.Parse(text); err == nil && !slices.Contains(p.Mounts[l.Blob.Digest], r) {
					p.Mounts[l.Blob.Digest] = append(p.Mounts[l.Blob.Digest], r)
				}
			}
		}
	}
	if len(children) == 1 {
		p.Root, p.Raw = children[0], p.Images[0].Manifest
		return p, nil
	}
	p.Root, p.Raw, err = index.Assemble(children, index.Options{Annotations: f.build.IndexAnnotations, Docker: form.docker})
	if err != nil {
		return output.Product{}, fmt.Errorf("assembling the index: %w", err)
	}
	return p, f.put(ctx, p.Root, p.Raw)
}

func (f *finisher) put(ctx context.Context, desc ocispec.Descriptor, raw []byte) error {
	return f.store.PutExpected(ctx, desc, bytes.NewReader(raw))
}

// layers gives every target's layers in the form's compression. Layers of equal content are compressed once.
func (f *finisher) layers(ctx context.Context, form form) ([][]image.Layer, error) {
	out := make([][]image.Layer, len(f.results))
	var g errgroup.Group
	g.SetLimit(f.parallel)
	for i, r := range f.results {
		out[i] = make([]image.Layer, len(r.Layers))
		for j, l := range r.Layers {
			get := f.once(ctx, l, form, f.epochOf(i))
			created := time.Unix(f.build.Targets[i].Created, 0).UTC()
			g.Go(func() error {
				il, err := get()
				if err != nil {
					return err
				}
				if l.History != nil {
					h := *l.History
					h.Created = &created
					il.History = &h
				}
				il.Created = l.Created
				out[i][j] = il
				return nil
			})
		}
	}
	return out, g.Wait()
}

// epochOf is the SOURCE_DATE_EPOCH of a target: a Dockerfile can say another one than the command line.
func (f *finisher) epochOf(target int) *int64 {
	if img := f.build.Targets[target].Image; img != nil {
		return img.Epoch
	}
	return f.epoch
}

// digestKey tells a layer made here from one pulled in a certain compression.
func digestKey(l solve.Layer) digest.Digest {
	if l.Blob.Digest != "" {
		return l.Blob.Digest
	}
	return l.DiffID
}

// layer gives one layer in a form. A base image's layer stays as it is unless the form forces otherwise.
func (f *finisher) layer(ctx context.Context, l solve.Layer, form form, epoch *int64) (image.Layer, error) {
	if l.Blob.Digest != "" && !form.force {
		return image.Layer{Desc: l.Blob, DiffID: l.DiffID}, nil
	}
	if form.rewrite && epoch != nil && l.Blob.Digest == "" {
		var err error
		if l, err = f.worker.Rewrite(ctx, l, time.Unix(*epoch, 0)); err != nil {
			return image.Layer{}, err
		}
	}
	mediaType, err := form.compression.MediaType(false)
	if err != nil {
		return image.Layer{}, err
	}
	if form.compression.Algorithm == "uncompressed" && l.Blob.Digest == "" {
		if err := f.worker.Unpack(ctx, l); err != nil {
			return image.Layer{}, err
		}
		return image.Layer{Desc: ocispec.Descriptor{MediaType: mediaType, Digest: l.DiffID, Size: l.Size}, DiffID: l.DiffID}, nil
	}
	if form.compression.Algorithm == layer.EStargz {
		desc, diffID, err := f.worker.Estargz(ctx, l, form.compression)
		if err != nil {
			return image.Layer{}, fmt.Errorf("compressing layer %s: %w", l.DiffID, err)
		}
		return image.Layer{Desc: desc, DiffID: diffID}, nil
	}
	if desc, ok := f.worker.Compressed(l.DiffID, form.compression); ok {
		return image.Layer{Desc: desc, DiffID: l.DiffID}, nil
	}
	if desc, compression, places, ok := f.worker.Elsewhere(l.DiffID); ok && compression == form.compression.String() {
		f.setPlaces(desc.Digest, places)
		return image.Layer{Desc: desc, DiffID: l.DiffID}, nil
	}
	desc, err := f.worker.Compress(ctx, l, form.compression)
	if err != nil {
		return image.Layer{}, fmt.Errorf("compressing layer %s: %w", l.DiffID, err)
	}
	return image.Layer{Desc: desc, DiffID: l.DiffID}, nil
}

// view opens the merged tree of one of the images.
func (f *finisher) view(ctx context.Context, img image.Image) (*layer.View, error) {
	for i, t := range f.build.Targets {
		if t.Platform == img.Platform {
			return f.worker.View(ctx, f.results[i].Layers)
		}
	}
	return nil, fmt.Errorf("no image of %s was built", img.Platform)
}

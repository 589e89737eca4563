package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// append writes the images of a product and adds them to what its names hold. It returns what the last of them became.
func (f *finisher) append(ctx context.Context, p plan, product output.Product) (ocispec.Descriptor, []byte, error) {
	var root ocispec.Descriptor
	var raw []byte
	entries, err := f.entries(product)
	if err != nil {
		return root, nil, err
	}
	if !p.pushes() {
		if err := p.dest.Write(ctx, product); err != nil { // content only
			return root, nil, err
		}
		for _, n := range product.Names {
			if root, raw, err = f.appendToStore(ctx, n.Familiar(), entries); err != nil {
				return root, nil, err
			}
		}
		return root, raw, nil
	}
	for _, img := range product.Images { // by digest
		one := product
		one.Images, one.Root, one.Raw = []image.Image{img}, img.Desc, img.Manifest
		if err := p.dest.Write(ctx, one); err != nil {
			return root, nil, err
		}
	}
	for _, n := range product.Names {
		done, err := transfer.Append(ctx, f.env, n, entries, transfer.AppendOptions{Replace: true, Annotations: f.build.IndexAnnotations})
		if err != nil {
			return root, nil, err
		}
		root, raw = done.Desc, done.Raw
	}
	return root, raw, nil
}

func (f *finisher) entries(product output.Product) ([]index.Entry, error) {
	out := make([]index.Entry, 0, len(product.Images))
	for i, img := range product.Images {
		desc := img.Desc
		desc.Annotations = f.build.Targets[i].EntryAnnotations
		if desc.Platform == nil {
			p := img.Platform.OCI()
			desc.Platform = &p
		}
		e, err := index.NewEntry(desc)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// maxSwaps is how often a name in the store may change while it is appended to.
const maxSwaps = 100

// appendToStore adds entries to what a name in the store points at. Of processes that do so at the same time none is lost.
func (f *finisher) appendToStore(ctx context.Context, name string, entries []index.Entry) (ocispec.Descriptor, []byte, error) {
	for range maxSwaps {
		old, x, err := f.editorOf(ctx, name)
		if err != nil {
			return ocispec.Descriptor{}, nil, fmt.Errorf("appending to %s in the store: %w", name, err)
		}
		for _, e := range entries {
			if err := x.Add(e, true); err != nil {
				return ocispec.Descriptor{}, nil, err
			}
		}
		if err := x.Annotate(f.build.IndexAnnotations); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		desc, raw, err := x.Finish()
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		if err := f.store.PutExpected(ctx, desc, bytes.NewReader(raw)); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		err = f.store.SwapRef(ctx, name, old, desc)
		if !errors.Is(err, store.ErrConflict) {
			return desc, raw, err
		}
	}
	return ocispec.Descriptor{}, nil, fmt.Errorf("%w: %s in the store was changed %d times meanwhile", store.ErrConflict, name, maxSwaps)
}

// editorOf starts to edit what a name in the store points at: an index, a single image that becomes the first entry of one,
// or nothing.
func (f *finisher) editorOf(ctx context.Context, name string) (digest.Digest, *index.Editor, error) {
	now, err := f.store.GetRef(name)
	if errors.Is(err, store.ErrNotFound) {
		x, err := index.NewEditor(index.Options{})
		return "", x, err
	}
	if err != nil {
		return "", nil, err
	}
	img, err := (&source.Opener{Store: f.store}).Open(ctx, ref.Ref{Kind: ref.Store, Digest: now.Digest})
	if err != nil {
		return "", nil, err
	}
	defer img.Close()
	if index.IsIndex(now.MediaType) {
		raw, err := img.Manifest(ctx, now)
		if err != nil {
			return "", nil, err
		}
		x, err := index.Edit(raw)
		return now.Digest, x, err
	}
	list, err := source.List(ctx, img)
	if err != nil {
		return "", nil, err
	}
	x, err := index.NewEditor(index.Options{})
	if err != nil || list[0].Kind != source.EntryImage || list[0].Platform == (platform.Platform{}) {
		return now.Digest, x, err // what is no image has no place beside images
	}
	p := list[0].Platform.OCI()
	e, err := index.NewEntry(ocispec.Descriptor{MediaType: now.MediaType, Digest: now.Digest, Size: now.Size, Platform: &p})
	if err == nil {
		err = x.Add(e, true)
	}
	return now.Digest, x, err
}

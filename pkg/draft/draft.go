// Package draft makes and edits indexes in the store, under their names, until they are pushed. A draft is an ordinary
// index: what `build -t X` made is one, and what is pushed is its very bytes.
//
// # Invariants
//
//   - The sources of a draft are pinned by digest when they are taken: a tag that moves later changes nothing.
//   - A change is made to what the name stands for at that instant, or again: of concurrent changes none is lost.
//   - A kill at any moment leaves the draft as it was or as it should be.
//   - Content in registries stays there: only manifests and configs are taken over, and where the rest lies is remembered.
package draft

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The kinds of errors.
var (
	// ErrExists says that there is a draft of that name already.
	ErrExists = errors.New("the draft exists")
	// ErrNotIndex says that a name in the store stands for something else.
	ErrNotIndex = errors.New("not an index")
	// ErrInvalid is the kind of a name that no draft can have, and of entries that contradict themselves.
	ErrInvalid = errors.New("invalid draft")
)

// Drafts are those of a store.
type Drafts struct {
	Store  *store.Store
	Opener *source.Opener // for sources; its Store is that of the drafts
}

// Draft is one of them.
type Draft struct {
	Name  string
	Desc  ocispec.Descriptor
	Raw   []byte
	Index *index.Index
}

// Platforms lists the platforms of a draft's images in their order.
func (d *Draft) Platforms() []string {
	out := []string{}
	for _, m := range d.Index.Manifests {
		e := index.Entry{Descriptor: m}
		if p, ok := platformOf(e); ok {
			out = append(out, p.String())
		}
	}
	return out
}

// Name is the name in the store that r stands for.
func Name(r ref.Ref) (string, error) {
	switch {
	case r.Kind != ref.Registry && r.Kind != ref.Store:
		return "", fmt.Errorf("%w name %q: a draft is in the store: write NAME[:TAG]", ErrInvalid, r)
	case r.Digest != "":
		return "", fmt.Errorf("%w name %q: a draft has no digest of its own until it is pushed: write NAME[:TAG]", ErrInvalid, r)
	}
	return r.Familiar(), nil
}

// Get reads a draft. ErrNotIndex says that the name stands for a single image.
func (d *Drafts) Get(ctx context.Context, r ref.Ref) (*Draft, error) {
	name, err := Name(r)
	if err != nil {
		return nil, err
	}
	desc, err := d.Store.HoldRef(name)
	if err != nil {
		return nil, err
	}
	return d.read(ctx, name, desc)
}

func (d *Drafts) read(ctx context.Context, name string, desc ocispec.Descriptor) (*Draft, error) {
	desc.Annotations = nil // of the name
	if !index.IsIndex(desc.MediaType) {
		return nil, fmt.Errorf("%q: %w but a single image: `create` makes an index of it", name, ErrNotIndex)
	}
	raw, err := d.Store.ReadAll(ctx, desc, index.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("draft %q: %w", name, err)
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("draft %q: %w", name, err)
	}
	return &Draft{Name: name, Desc: desc, Raw: raw, Index: idx}, nil
}

// List returns all drafts by name. What cannot be read is in bad.
func (d *Drafts) List(ctx context.Context) (drafts []*Draft, bad []error, err error) {
	refs, err := d.Store.Refs()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range refs {
		if !index.IsIndex(r.Desc.MediaType) {
			continue
		}
		one, err := d.read(ctx, r.Name, r.Desc)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case err != nil:
			bad = append(bad, err)
		default:
			drafts = append(drafts, one)
		}
	}
	return drafts, bad, nil
}

// CreateOptions tunes Create. The zero value makes a new OCI index.
type CreateOptions struct {
	Amend           bool // add to a draft that exists
	Replace         bool // take the place of a draft that exists
	ReplacePlatform bool // another image for a platform takes the old one's place
	Docker          bool // a Docker manifest list
	Annotations     map[string]string
}

// Create makes a draft of sources. ErrExists says that there is one, unless the options say what to do with it.
func (d *Drafts) Create(ctx context.Context, r ref.Ref, sources []Source, o CreateOptions) (*Draft, []string, error) {
	name, err := Name(r)
	if err != nil {
		return nil, nil, err
	}
	fill := func(x *index.Editor) error {
		if err := x.Annotate(o.Annotations); err != nil {
			return err
		}
		return Adding(sources, o.ReplacePlatform)(x)
	}
	fresh := func() (*index.Editor, error) { return index.NewEditor(index.Options{Docker: o.Docker}) }
	return d.change(ctx, name, func(now *Draft, there bool) (*index.Editor, error) {
		var x *index.Editor
		var err error
		switch {
		case !there || o.Replace:
			x, err = fresh()
		case !o.Amend:
			return nil, fmt.Errorf("%w: %q: amend or replace it", ErrExists, name)
		case now == nil:
			return nil, fmt.Errorf("%q: %w but a single image", name, ErrNotIndex)
		default:
			x, err = index.Edit(now.Raw)
		}
		if err != nil {
			return nil, err
		}
		return x, fill(x)
	})
}

// Update changes a draft that exists. edit may be called again when another process was faster.
func (d *Drafts) Update(ctx context.Context, r ref.Ref, edit func(*index.Editor) error) (*Draft, []string, error) {
	name, err := Name(r)
	if err != nil {
		return nil, nil, err
	}
	return d.change(ctx, name, func(now *Draft, there bool) (*index.Editor, error) {
		if !there {
			return nil, d.missing(name)
		}
		if now == nil {
			return nil, fmt.Errorf("%q: %w but a single image: `create` makes an index of it", name, ErrNotIndex)
		}
		x, err := index.Edit(now.Raw)
		if err != nil {
			return nil, err
		}
		return x, edit(x)
	})
}

// change reads what name stands for, makes something else of it and swaps the two, until nobody came between.
// now is nil when the name stands for no index.
func (d *Drafts) change(ctx context.Context, name string, make func(now *Draft, there bool) (*index.Editor, error)) (*Draft, []string, error) {
	for {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		old, err := d.Store.GetRef(name)
		there := err == nil
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, nil, err
		}
		var now *Draft
		if there {
			now, err = d.read(ctx, name, old)
			if err != nil && !errors.Is(err, ErrNotIndex) {
				return nil, nil, err
			}
		}
		x, err := make(now, there)
		if err != nil {
			return nil, nil, err
		}
		desc, raw, err := x.Finish()
		if err != nil {
			return nil, nil, err
		}
		idx, err := index.Parse(raw)
		if err != nil {
			return nil, nil, err
		}
		if there && desc.Digest == old.Digest {
			return now, x.Notes(), nil
		}
		if _, err := d.Store.PutBytes(ctx, desc.MediaType, raw); err != nil {
			return nil, nil, err
		}
		err = d.Store.SwapRef(ctx, name, old.Digest, desc)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		return &Draft{Name: name, Desc: desc, Raw: raw, Index: idx}, x.Notes(), nil
	}
}

// missing is the error for a draft that is not there; it says what is.
func (d *Drafts) missing(name string) error {
	const most = 20
	var names []string
	refs, err := d.Store.Refs()
	if err != nil {
		return errors.Join(fmt.Errorf("draft %q: %w", name, store.ErrNotFound), err)
	}
	for _, r := range refs {
		if index.IsIndex(r.Desc.MediaType) {
			names = append(names, r.Name)
		}
	}
	there := "there are none"
	switch {
	case len(names) > most:
		there = fmt.Sprintf("there are %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	case len(names) > 0:
		there = "there are " + strings.Join(names, ", ")
	}
	return fmt.Errorf("draft %q: %w: %s", name, store.ErrNotFound, there)
}

// Remove removes the names of drafts. Their content stays until the store is collected.
func (d *Drafts) Remove(ctx context.Context, r ref.Ref) error {
	name, err := Name(r)
	if err != nil {
		return err
	}
	if err := d.Store.DeleteRef(ctx, name); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return d.missing(name)
		}
		return err
	}
	return nil
}

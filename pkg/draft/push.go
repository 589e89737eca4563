package draft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Form is how an index is written.
type Form string

// The forms.
const (
	AsIs   Form = ""
	OCI    Form = "oci"
	Docker Form = "docker" // a Docker manifest list
)

// PushOptions tunes Push. The zero value pushes the draft's very bytes.
type PushOptions struct {
	Form      Form // of what is pushed; the draft stays as it is
	Purge     bool // remove the draft when it is pushed, unless it was changed meanwhile
	Condition transfer.Condition
	Stdout    io.Writer // what an archive named "-" is written to; may be nil
	Now       func() time.Time
	// Check, when it is not nil, sees what is pushed before anything is. An error ends the push.
	Check func(ctx context.Context, img source.Image) error
}

// Push brings a draft, or whatever a name in the store stands for, with everything it names to other places: content first,
// names last. No destination means its own name in a registry.
func (d *Drafts) Push(ctx context.Context, r ref.Ref, to []ref.Ref, o PushOptions) (desc ocispec.Descriptor, report transfer.Report, err error) {
	name, err := Name(r)
	if err != nil {
		return desc, report, err
	}
	pinned, err := d.Store.HoldRef(name)
	if errors.Is(err, store.ErrNotFound) {
		return desc, report, d.missing(name)
	}
	if err != nil {
		return desc, report, err
	}
	if len(to) == 0 {
		self, err := ref.ParseTag(name)
		if err != nil {
			return desc, report, err
		}
		to = []ref.Ref{self}
	}
	img, err := d.Opener.Open(ctx, ref.Ref{Kind: ref.Store, Digest: pinned.Digest})
	if err != nil {
		return desc, report, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	if o.Check != nil {
		if err := o.Check(ctx, img); err != nil {
			return desc, report, err
		}
	}
	root := transfer.Root{Desc: img.Root(), From: img, Names: to}
	if root.Raw, err = img.Manifest(ctx, root.Desc); err != nil {
		return desc, report, err
	}
	notes, err := convert(&root, o.Form)
	if err != nil {
		return desc, report, err
	}
	if err := d.locate(ctx, img, &root); err != nil {
		return desc, report, err
	}
	env := transfer.Env{Registry: d.Opener.Registry, Store: d.Store, Dir: d.Opener.Dir, Stdout: o.Stdout, Now: o.Now}
	report, err = transfer.Move(ctx, env, []transfer.Root{root}, transfer.Options{Condition: o.Condition})
	report.Notes = append(notes, report.Notes...)
	if err != nil || !o.Purge {
		return root.Desc, report, err
	}
	err = d.Store.RemoveRef(ctx, name, pinned.Digest)
	if errors.Is(err, store.ErrConflict) {
		report.Notes = append(report.Notes, fmt.Sprintf("%s was changed while it was pushed: the draft stays", name))
		err = nil
	}
	return root.Desc, report, err
}

// convert gives an index another form.
func convert(root *transfer.Root, form Form) ([]string, error) {
	if form == AsIs {
		return nil, nil
	}
	if !index.IsIndex(root.Desc.MediaType) {
		return nil, fmt.Errorf("%s is %w, and the form %q is of one", root.Desc.Digest, ErrNotIndex, form)
	}
	x, err := index.Edit(root.Raw)
	if err != nil {
		return nil, err
	}
	if err := x.Convert(form == Docker); err != nil {
		return nil, err
	}
	root.Desc, root.Raw, err = x.Finish()
	return x.Notes(), err
}

// locate says where the content of a root lies, as far as that is not the store.
func (d *Drafts) locate(ctx context.Context, img source.Image, root *transfer.Root) error {
	if !index.IsIndex(root.Desc.MediaType) {
		at, ok, err := d.nearest(root.Desc.Digest, root.Names)
		if ok {
			root.From = part{img, at}
		}
		return err
	}
	parts, err := d.parts(ctx, img, root.Raw, root.Names)
	root.Parts = parts
	return err
}

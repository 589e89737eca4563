// Package inspect tells what an image or index is: a table of platforms for
// people, exact bytes, JSON and Go templates for scripts.
//
// # Invariants
//
//   - Raw output is what the reference's digest was computed from, byte for byte.
//   - Text of an image that could steer a terminal is printed escaped, but for raw, JSON and templates.
//   - What contradicts itself inside an index is shown and warned of, not hidden; what cannot be fetched is an error.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// ErrFormat is the kind of every error in options: a template that is none, two ways of output at once.
var ErrFormat = errors.New("invalid format")

// Opener opens references; *source.Opener is one.
type Opener interface {
	Open(ctx context.Context, r ref.Ref) (source.Image, error)
}

var _ Opener = (*source.Opener)(nil)

// Options tunes Run. The zero value prints the table.
type Options struct {
	Raw      bool              // the exact bytes of the manifest or index
	Format   string            // "" or "table", "json", or a Go template over .Name, .Manifest and .Image
	Tree     bool              // everything it leads to, nested, with all annotations; as text or JSON
	Platform platform.Platform // zero: all; else the image of an index that a client of this platform gets
}

// Result is what was found. Write prints it.
type Result struct {
	Name         string             // the reference, canonical; by digest when Options.Platform chose from an index
	Desc         ocispec.Descriptor // of Raw
	Raw          []byte
	Index        *index.Index      // nil for a single manifest, and when only bytes were asked for
	Manifest     *ocispec.Manifest // nil for an index, and when only bytes were asked for
	Images       []Image           // in the index's order; the only one of a single image
	Attestations []Attestation
	Others       []ocispec.Descriptor // artifacts, and what is of no known type
	Warnings     []string             // contradictions and gaps, one line each

	out []byte // what Write prints
}

// Image is one platform's image.
type Image struct {
	Tree     bool              // everything it leads to, nested, with all annotations; as text or JSON
	Platform platform.Platform // zero when it cannot be told
	Desc     ocispec.Descriptor
	Size     int64     // of all layers as they are transferred, bytes
	Layers   int       // how many
	Created  time.Time // zero when the config does not say
	Config   *Config   // nil when it cannot be read; a warning says why
}

// Attestation is a manifest that describes an image of the same index.
type Attestation struct {
	Desc    ocispec.Descriptor
	Attests digest.Digest // "" when it does not say
}

// Run opens r and reads what o needs of it. Manifests and configs are fetched concurrently.
func Run(ctx context.Context, opener Opener, r ref.Ref, o Options) (_ *Result, err error) {
	render, err := o.renderer()
	if err != nil {
		return nil, err
	}
	img, err := opener.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()

	res := &Result{Name: r.String(), Desc: img.Root()}
	if !o.Platform.IsZero() {
		found, err := source.Resolve(ctx, img, o.Platform)
		if err != nil {
			return nil, err
		}
		if found.Desc.Digest != res.Desc.Digest {
			res.Name = r.WithDigest(found.Desc.Digest).String()
		}
		res.Desc = found.Desc
	}
	if res.Raw, err = img.Manifest(ctx, res.Desc); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if err := render(ctx, &reader{img: img, res: res}); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return res, nil
}

// Write prints the result as Options said.
func (r *Result) Write(w io.Writer) error {
	if _, err := w.Write(r.out); err != nil {
		return fmt.Errorf("writing what was found: %w", err)
	}
	return nil
}

// renderer makes a result's output. It reads no more of the image than it needs.
type renderer func(ctx context.Context, r *reader) error

// renderer checks the options before anything is opened.
func (o Options) renderer() (renderer, error) {
	switch {
	case o.Raw && o.Format != "":
		return nil, fmt.Errorf("%w: raw bytes and the format %q exclude each other: leave one out", ErrFormat, o.Format)
	case o.Tree && (o.Raw || o.Format != "" && o.Format != "json" && o.Format != "table"):
		return nil, fmt.Errorf("%w: a tree is text or json", ErrFormat)
	case o.Tree && o.Format == "json":
		return renderTreeJSON, nil
	case o.Tree:
		return renderTree, nil
	case o.Raw:
		return func(_ context.Context, r *reader) error {
			r.res.out = r.res.Raw
			return nil
		}, nil
	case o.Format == "" || o.Format == "table":
		return renderTable, nil
	case o.Format == "json":
		return renderJSON, nil
	}
	return templateRenderer(o.Format)
}

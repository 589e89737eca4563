// Package edit changes images that exist, each image of an index and the index with them: config and annotations, the
// base, layers. What it makes goes to any place that transfer reaches.
//
// # Invariants
//
//   - What is not changed keeps its very bytes, and what is changed keeps the order and the fields that nothing was said about.
//   - An index stays an index: of the same entries in the same order, nested as they were.
//   - Attestations and referrers describe what their image became; what was signed before is not passed off as signed now.
//   - Equal inputs give equal bytes. An edit takes no time from the clock.
package edit

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// The kinds of errors.
var (
	// ErrInvalid says that what was asked for cannot be done to this image.
	ErrInvalid = errors.New("invalid edit")
	// ErrNotBase says that an image is not built on what should be its base.
	ErrNotBase = errors.New("not the base of the image")
)

// Options tunes an edit. The zero value is the recommended one.
type Options struct {
	transfer.Options                       // of the transfer; Platforms: these images only, and the others stay in the index as they are
	Annotations      []transfer.Annotation // of index, manifests and entries
	Unannotate       []transfer.Annotation // the same, taken away; values do not count
	Remove           []Entry               // entries of the index that are left out, with their attestations
	Form             Form                  // of index and manifests
	Spool            string                // where layers are unpacked to; "" is the system's place for temporary files
	NoReferrers      bool                  // what refers to an image that is changed stays with the old one
}

// Entry names an entry of an index: by its digest, or the platform it is for.
type Entry struct {
	Digest   digest.Digest
	Platform platform.Platform
}

// ParseEntry reads a digest or a platform.
func ParseEntry(s string) (Entry, error) {
	if d := digest.Digest(s); d.Validate() == nil {
		return Entry{Digest: d}, nil
	}
	p, err := platform.Parse(s)
	return Entry{Platform: p}, err
}

// Form is how an index and its manifests are written.
type Form string

// The forms.
const (
	AsIs   Form = ""
	OCI    Form = "oci"
	Docker Form = "docker"
)

// Result is what an edit made.
type Result struct {
	transfer.Report
	Desc ocispec.Descriptor
	Raw  []byte
	// Changed has the images that became others: the digest they had, and have.
	Changed map[digest.Digest]digest.Digest
}

// subject is one image that is edited.
type subject struct {
	img      source.Image
	desc     ocispec.Descriptor // as its index has it
	platform platform.Platform
	manifest ocispec.Manifest
	raw      []byte // of the manifest
	config   source.Config
}

// product is what an image became.
type product struct {
	manifest []byte
	desc     ocispec.Descriptor // of the manifest; with the platform, if that changed
	notes    []string
	docs     [][]byte                       // configs
	blobs    map[digest.Digest]*made        // layers that were made
	from     map[digest.Digest]source.Image // layers that come from another image
	patch    index.PlatformPatch            // of the entry
}

// op changes one image.
type op interface {
	apply(ctx context.Context, s *subject) (*product, error)
	// close gives back what the operation holds.
	close() error
}

// run edits what src names and brings it to names.
func run(ctx context.Context, env transfer.Env, src ref.Ref, names []ref.Ref, o op, opts Options) (_ Result, err error) {
	defer func() { err = errors.Join(err, o.close()) }()
	var res Result
	if len(names) == 0 {
		return res, fmt.Errorf("%w: it goes nowhere: name a destination", ErrInvalid)
	}
	img, err := env.Opener().Open(ctx, src)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	t := &tree{
		op: o, o: opts, img: img, content: newContent(img),
		changed: map[digest.Digest]ocispec.Descriptor{}, notes: map[string]bool{}, gone: map[Entry]bool{},
	}
	root, raw, err := t.root(ctx)
	if err != nil {
		return res, fmt.Errorf("%s: %w", src, err)
	}
	root.Annotations = transfer.AnnotationsFor(opts.Annotations, transfer.LevelIndexDescriptor, nil)
	roots, err := t.referrers(ctx, env, names)
	if err != nil {
		return res, err
	}
	roots = append(roots, transfer.Root{Desc: root, Raw: raw, From: t.content, Names: names})
	res.Report, err = transfer.Move(ctx, env, roots, opts.moving())
	res.Desc, res.Raw, res.Changed = root, raw, map[digest.Digest]digest.Digest{}
	for old, now := range t.changed {
		res.Changed[old] = now.Digest
	}
	res.Notes = append(t.sorted(), res.Notes...)
	if n := len(res.Roots); n > 1 {
		res.Roots = res.Roots[n-1:]
	}
	if err != nil || opts.DryRun {
		return res, err
	}
	return res, t.remember(ctx, env, names)
}

// moving is how the result is moved: all of it.
func (o Options) moving() transfer.Options {
	m := o.Options
	m.Platforms = nil
	return m
}

// remember tells the store where the layers of images that lie in a registry are: where those of the old ones are.
func (t *tree) remember(ctx context.Context, env transfer.Env, names []ref.Ref) error {
	if env.Store == nil || t.img.Ref().Kind != ref.Store {
		return nil
	}
	for _, n := range names {
		if n.Kind != ref.Store {
			continue
		}
		for old, now := range t.changed {
			places, err := env.Store.Origins(old)
			if err != nil {
				return err
			}
			for _, text := range places {
				if err := env.Store.AddOrigin(ctx, now.Digest, text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/bundle"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// LoadOptions tunes Load. Of Options, those that are about what is copied mean nothing: an archive is loaded as it is.
type LoadOptions struct {
	Options
	// To is where the names of the archive go; the zero value is the store.
	To Place
	// Name, if it is not the zero Ref, is what the only image of the archive is called, or the place of all tags of
	// its only repository.
	Name  ref.Ref
	Check bool      // read and verify, and change nothing
	Stdin io.Reader // what an archive named "-" is read from
	Spool string    // where compressed archives and those of a pipe are unpacked; "": the system's directory for it
}

// Load brings what an archive holds to a place: one of Save, an OCI archive or one of docker save, plain or compressed.
// The whole archive is read and verified before anything is written.
func Load(ctx context.Context, env Env, file string, o LoadOptions) (_ Report, err error) {
	m := newMover(env, o.Options)
	before := env.requests()
	if file != "-" {
		file = m.path(file)
	}
	f, err := bundle.OpenFile(ctx, file, o.Stdin, o.Spool)
	if err != nil {
		return m.report, notFound(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	defer func() { err = errors.Join(err, m.close()) }() // the images of f before it
	l := loader{m: m, file: f, o: o}
	a, err := bundle.Read(f)
	switch {
	case errors.Is(err, bundle.ErrForeign):
		err = l.foreign(ctx)
	case err == nil:
		err = l.bundle(ctx, a)
	}
	if err != nil {
		return m.report, err
	}
	if !o.Check {
		roots, err := l.roots(ctx)
		if err == nil {
			err = l.checkBase(ctx, roots)
		}
		if err != nil {
			return m.report, err
		}
		err = m.move(ctx, roots)
		if err != nil {
			return m.report, err
		}
	}
	m.report.Roots = nil
	for _, e := range l.entries {
		if e.kind == entryImage {
			m.report.Roots = append(m.report.Roots, e.desc)
		}
	}
	m.report.Requests += env.requests() - before
	return m.report, nil
}

// loader is what is known of an archive.
type loader struct {
	m       *mover
	file    *bundle.File
	o       LoadOptions
	archive *bundle.Archive // nil: one of another program
	entries []loaded
}

type entryKind int

const (
	entryImage     entryKind = iota
	entrySignature           // under a tag of cosign's
	entryReferrers           // an index of what refers to something
)

// loaded is one name of the archive.
type loaded struct {
	desc ocispec.Descriptor
	from Source
	name ref.Ref // whole; or only a tag, of no kind
	kind entryKind
}

// bundled is a bundle as a source.
type bundled struct {
	a  *bundle.Archive
	at ref.Ref
}

var _ Source = bundled{}

func (b bundled) Ref() ref.Ref { return b.at }

func (b bundled) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	raw, err := b.a.Document(ctx, desc)
	return raw, notFound(err)
}

func (b bundled) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := b.a.Open(ctx, desc)
	return rc, notFound(err)
}

func notFound(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", source.ErrNotFound, err)
	}
	return err
}

// bundle verifies an archive of Save.
func (l *loader) bundle(ctx context.Context, a *bundle.Archive) error {
	if err := a.Verify(ctx); err != nil {
		return err
	}
	l.archive = a
	for _, r := range a.Contents.Roots {
		desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size}
		at := ref.Ref{Kind: ref.OCIArchive, Path: l.file.Path()}
		if err := l.add(desc, bundled{a, at}, bundle.Name(r)); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) add(desc ocispec.Descriptor, from Source, name string) error {
	e := loaded{desc: desc, from: from}
	switch {
	case name == "":
	case ref.CheckTag(name) == nil:
		e.name.Tag = name
	default:
		r, err := ref.Parse(name)
		if err != nil || r.Kind != ref.Registry {
			return fmt.Errorf("%w: an image is called %.100q, which is no name of one", bundle.ErrInvalid, name)
		}
		e.name = r
	}
	if _, kind, ok := source.RelatedTag(e.name.Tag); ok {
		e.kind = entrySignature
		if kind == "" {
			e.kind = entryReferrers
		}
	}
	l.entries = append(l.entries, e)
	return nil
}

// roots are what goes where.
func (l *loader) roots(ctx context.Context) ([]Root, error) {
	var related, out []Root
	for _, e := range l.entries {
		to, err := l.target(e)
		if err != nil {
			return nil, err
		}
		switch e.kind {
		case entryImage:
			r := Root{Desc: e.desc, From: e.from, Names: []ref.Ref{to}}
			if to.Kind == ref.OCILayout && to.Tag == "" && e.name.Kind == ref.Registry {
				r.Whole = []ref.Ref{e.name}
			}
			out = append(out, r)
		case entrySignature:
			related = append(related, Root{Desc: e.desc, From: e.from, Names: []ref.Ref{to.WithTag(e.name.Tag)}})
		case entryReferrers:
			more, err := l.referrers(ctx, e, to)
			if err != nil {
				return nil, err
			}
			related = append(related, more...)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: it holds no image", bundle.ErrInvalid)
	}
	return append(related, out...), nil
}

// referrers are the roots that an index of referrers lists.
func (l *loader) referrers(ctx context.Context, e loaded, to ref.Ref) ([]Root, error) {
	raw, err := e.from.Manifest(ctx, e.desc)
	if err != nil {
		return nil, err
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", bundle.ErrInvalid, e.name, err)
	}
	var out []Root
	for _, d := range idx.Manifests {
		raw, err := e.from.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		subject, err := index.SubjectOf(raw)
		if err != nil || subject == nil {
			return nil, fmt.Errorf("%w: %s is listed as a referrer and has no subject (%w)", bundle.ErrInvalid, d.Digest, err)
		}
		desc := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		out = append(out, Root{Desc: desc, From: e.from, Names: []ref.Ref{to.WithDigest(d.Digest)}, Subject: subject.Digest})
	}
	return out, nil
}

// target is where an entry goes.
func (l *loader) target(e loaded) (ref.Ref, error) {
	if l.o.Name.Kind != "" {
		return l.renamed(e)
	}
	if e.name.Kind == "" {
		return e.name, fmt.Errorf("%w: %s has no whole name in the archive: say what it is to be called (load -i FILE NAME)", ErrInvalid, e.shown())
	}
	return l.o.To.at(e.name)
}

// renamed is where an entry goes when the user names the place.
func (l *loader) renamed(e loaded) (ref.Ref, error) {
	images, repos := map[string]bool{}, map[string]bool{}
	for _, o := range l.entries {
		repos[o.name.WithTag("").String()] = true
		if o.kind == entryImage {
			images[o.desc.Digest.String()] = true
		}
	}
	switch {
	case len(images) == 1 && e.kind == entryImage:
		return l.o.Name, nil
	case e.kind != entryImage && (len(images) == 1 || len(repos) == 1):
		return l.o.Name, nil
	case len(repos) == 1 && e.name.Tag != "":
		return retagged(l.o.Name, e.name.Tag), nil
	}
	return ref.Ref{}, fmt.Errorf("%w: the archive holds %d images of several names, and %s is one name: say where all names go with --to", ErrInvalid, len(images), l.o.Name)
}

func (e loaded) shown() string {
	if e.name.Tag != "" {
		return fmt.Sprintf("%q", e.name.Tag)
	}
	return e.desc.Digest.String()
}

// checkBase makes sure that what the archive leaves out is where it goes. In the store it is held until the end.
func (l *loader) checkBase(ctx context.Context, roots []Root) error {
	if l.archive == nil || len(l.archive.Contents.Base) == 0 {
		return nil
	}
	needed := map[string][]ocispec.Descriptor{} // roots, by place
	at := map[string]ref.Ref{}
	for _, r := range roots {
		key := placeKey(r.Names[0])
		needed[key], at[key] = append(needed[key], r.Desc), r.Names[0]
	}
	var missing []string
	for key, roots := range needed {
		reached, err := l.archive.Reach(ctx, roots)
		if err != nil {
			return err
		}
		for _, b := range reached.Base {
			ok, err := l.m.hasSound(ctx, at[key], b)
			if err != nil {
				return err
			}
			if !ok {
				missing = append(missing, fmt.Sprintf("%s in %s", b.Digest, at[key].WithTag("")))
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("%w: the archive builds on an older one, of which %d blobs are missing or damaged: %s: load that one first",
		ErrIncomplete, len(missing), strings.Join(missing, ", "))
}

// hasSound reports whether a place has a blob. Where it is a disk's, it is read.
func (m *mover) hasSound(ctx context.Context, at ref.Ref, desc ocispec.Descriptor) (bool, error) {
	if at.Kind == ref.Registry {
		leave, err := slot(ctx, m.requests)
		if err != nil {
			return false, err
		}
		defer leave()
		return m.env.Registry.HasBlob(ctx, at.WithDigest(desc.Digest), desc.Digest)
	}
	var open registry.Open
	switch at.Kind {
	case ref.Store:
		open = func(ctx context.Context) (io.ReadCloser, error) { return m.env.Store.Open(ctx, desc) }
	case ref.OCILayout:
		open = (&dryLayout{path: m.path(at.Path)}).opener(desc)
	default:
		return false, fmt.Errorf("%w: an archive that builds on an older one cannot be loaded into %s", ErrInvalid, at)
	}
	rc, err := open(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // whatever it is, it is not there as it should be
	}
	v := desc.Digest.Verifier()
	n, err := io.Copy(v, rc)
	if err = errors.Join(err, rc.Close()); err != nil && ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && n == desc.Size && v.Verified(), nil
}

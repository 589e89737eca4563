package transfer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/bundle"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// SaveOptions tunes Save. Of Options, Condition and NoClobber mean nothing.
type SaveOptions struct {
	Options
	Since []bundle.Contents // what the other side has: it is left out
}

// Saved is what Save wrote.
type Saved struct {
	Report
	Contents bundle.Contents `json:"-"`
	Size     int64           `json:"size"`    // of the archive, in bytes
	Resumed  int64           `json:"resumed"` // bytes that an earlier attempt had left
	Base     int             `json:"base"`    // blobs that are left out, and the other side has
}

// Save writes what refs name, with everything it reaches and everything that refers to it, into one archive at dest
// ("-": env.Stdout). What an attempt that did not end has left of a file is used again.
func Save(ctx context.Context, env Env, refs []ref.Ref, dest string, o SaveOptions) (out Saved, err error) {
	if o.Sparse {
		return out, fmt.Errorf("%w: an archive is complete: a sparse index is for copies", ErrInvalid)
	}
	m := newMover(env, o.Options)
	before := env.requests()
	defer func() {
		m.report.Requests += env.requests() - before
		out.Report = m.report
		err = errors.Join(err, m.close())
	}()
	roots, err := m.savedRoots(ctx, refs)
	if err != nil {
		return out, err
	}
	asked := len(roots)
	if o.Referrers == WithReferrers {
		if roots, err = m.withRelated(ctx, roots, true); err != nil {
			return out, err
		}
	}
	known := map[digest.Digest]bool{}
	for _, c := range o.Since {
		for d := range c.Known() {
			known[d] = true
		}
	}
	s := newBundleSink(known)
	p := &place{sink: s, roots: roots, run: &run{mover: m, sink: s, tasks: map[digest.Digest]*task{}}}
	m.o.DryRun = false // nothing is written by noting
	named, err := p.content(ctx)
	if err != nil {
		return out, err
	}
	for _, r := range roots[len(roots)-asked:] {
		m.report.Roots = append(m.report.Roots, r.Desc)
	}
	if out.Contents, err = s.contents(ctx, named); err != nil {
		return out, err
	}
	m.report.Manifests, m.report.Blobs, m.report.Bytes = len(out.Contents.Documents), len(out.Contents.Blobs), total(out.Contents)
	out.Base = len(out.Contents.Base)
	if out.Size, err = bundle.Size(out.Contents); err != nil || o.DryRun {
		return out, err
	}
	if dest == "-" {
		if env.Stdout == nil {
			return out, fmt.Errorf("%w: there is no standard output", ErrInvalid)
		}
		return out, bundle.Write(ctx, env.Stdout, out.Contents, s.reader)
	}
	if env.Dir != "" && !filepath.IsAbs(dest) {
		dest = filepath.Join(env.Dir, dest)
	}
	w, err := bundle.WriteFile(ctx, dest, out.Contents, min(m.o.Concurrency, maxStreams), s.reader)
	out.Resumed = w.Kept
	if err != nil {
		return out, fmt.Errorf("writing %s (run it again to go on): %w", dest, err)
	}
	return out, nil
}

func total(c bundle.Contents) (n int64) {
	for _, l := range [][]ocispec.Descriptor{c.Documents, c.Blobs} {
		for _, d := range l {
			n += d.Size
		}
	}
	return n
}

// savedRoots opens what is to be saved, each under the name it has in the archive.
func (m *mover) savedRoots(ctx context.Context, refs []ref.Ref) ([]Root, error) {
	if len(refs) == 0 {
		return nil, fmt.Errorf("%w: nothing to save", ErrInvalid)
	}
	var roots []Root
	var all []ref.Ref
	for _, r := range refs {
		if !m.o.AllTags {
			all = append(all, r)
			continue
		}
		tags, err := m.tags(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, t := range tags {
			all = append(all, retagged(r, t))
		}
	}
	for _, r := range all {
		img, err := m.env.opener().Open(ctx, r)
		if err != nil {
			return nil, err
		}
		m.opened = append(m.opened, img)
		root, err := m.subset(ctx, img, ref.Ref{Kind: ref.OCIArchive})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		root.Names = wholeNames(r)
		switch {
		case len(root.Names) > 0:
		case r.Kind == ref.Registry: // by digest: it has a repository, which what refers to it needs
			root.Names = []ref.Ref{r.WithDigest(root.Desc.Digest)}
		default:
			root.Names = []ref.Ref{{Kind: ref.OCIArchive, Tag: r.Tag}}
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// retagged is r under another tag; in the store that is another name.
func retagged(r ref.Ref, tag string) ref.Ref {
	if r.Kind == ref.Store {
		return ref.Ref{Kind: ref.Store, Name: r.Name, Tag: tag}
	}
	return r.WithTag(tag)
}

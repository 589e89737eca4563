package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// append adds the parts to every tag.
func (m *merger) append(ctx context.Context, names []ref.Ref, parts []part) (Merged, error) {
	var done Merged
	if !m.o.Replace {
		if err := twice(parts); err != nil {
			return done, err
		}
	}
	for _, n := range names {
		if n.Kind != ref.Registry {
			return m.appendLocal(ctx, names, parts)
		}
	}
	var roots []Root
	var entries []index.Entry
	for _, p := range parts {
		entries = append(entries, p.Entry)
		root := Root{Desc: p.Descriptor, From: p.from}
		for _, n := range names {
			root.Names = append(root.Names, n.WithDigest(p.Digest))
		}
		roots = append(roots, root)
	}
	if err := m.m.appendContent(ctx, roots); err != nil {
		return done, err
	}
	done.Report = m.m.report
	o := AppendOptions{
		Replace: m.o.Replace, DryRun: m.o.DryRun, Pause: m.o.Pause,
		Annotations: annotationsOf(m.o.Annotations, LevelIndex, nil),
	}
	for _, n := range names {
		got, err := Append(ctx, m.env, n, entries, o)
		if err != nil {
			return done, err
		}
		done.Desc, done.Raw = got.Desc, got.Raw
		done.Notes = append(done.Notes, got.Notes...)
		if !m.o.DryRun {
			done.Manifests++
		}
	}
	done.Roots = []ocispec.Descriptor{done.Desc}
	return done, nil
}

// appendContent brings entries to the places of their names, by digest.
func (m *mover) appendContent(ctx context.Context, roots []Root) (err error) {
	places, err := m.places(ctx, roots)
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.sink.close())
		}
	}()
	if err != nil {
		return err
	}
	for _, p := range places {
		p.run = &run{mover: m, sink: p.sink, tasks: map[digest.Digest]*task{}}
		g, gctx := errgroup.WithContext(ctx)
		for _, r := range p.roots {
			g.Go(func() error { return p.run.document(gctx, node{desc: r.Desc, raw: r.Raw, from: r.From}) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// appendLocal adds the parts to what a name of the store or a layout holds: one process at a time changes those.
func (m *merger) appendLocal(ctx context.Context, names []ref.Ref, parts []part) (Merged, error) {
	var done Merged
	if len(names) != 1 {
		return done, fmt.Errorf("%w: appending to several places that are not all registries: do one after the other", ErrInvalid)
	}
	img, err := m.env.opener().Open(ctx, names[0])
	if err != nil && !errors.Is(err, source.ErrNotFound) {
		return done, err
	}
	var before []part
	if err == nil {
		defer img.Close()
		if before, err = m.entriesOf(ctx, img, MergeSource{Ref: names[0]}); err != nil {
			return done, err
		}
		for _, p := range before {
			if m.parts[p.Digest] == nil {
				m.parts[p.Digest] = p.from
			}
		}
	}
	if !m.o.Replace {
		if err := twice(append(slices.Clone(before), parts...)); err != nil {
			return done, err
		}
	}
	root, err := m.rootOnto(ctx, img, before, parts)
	if err != nil {
		return done, err
	}
	root.Names = names
	done.Desc, done.Raw = root.Desc, root.Raw
	err = m.m.move(ctx, []Root{root})
	done.Report = m.m.report
	return done, err
}

// rootOnto adds parts to an index that is there, keeping what it says of itself.
func (m *merger) rootOnto(ctx context.Context, img source.Image, before, parts []part) (Root, error) {
	if img == nil || !index.IsIndex(img.Root().MediaType) {
		return m.root(ctx, nil, append(before, parts...))
	}
	raw, err := img.Manifest(ctx, img.Root())
	if err != nil {
		return Root{}, err
	}
	x, err := index.Edit(raw)
	if err != nil {
		return Root{}, err
	}
	for _, p := range parts {
		if err := x.Add(p.Entry, m.o.Replace); err != nil {
			return Root{}, err
		}
	}
	if err := x.Annotate(annotationsOf(m.o.Annotations, LevelIndex, nil)); err != nil {
		return Root{}, err
	}
	root := Root{From: img, Parts: m.parts}
	root.Desc, root.Raw, err = x.Finish()
	return root, err
}

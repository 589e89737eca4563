package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	images "github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// entriesOf makes the entries of one source.
func (m *merger) entriesOf(ctx context.Context, img source.Image, s MergeSource) ([]part, error) {
	root := img.Root()
	var entries []index.Entry
	switch {
	case !index.IsIndex(root.MediaType):
		leave, err := slot(ctx, m.m.requests)
		if err != nil {
			return nil, err
		}
		e, err := m.single(ctx, img, s)
		leave()
		if err != nil {
			return nil, err
		}
		entries = []index.Entry{e}
	case m.o.Nested:
		if !s.Platform.IsZero() {
			return nil, fmt.Errorf("%w: a nested index has no platform", ErrInvalid)
		}
		e, err := index.NewEntry(ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size})
		if err == nil {
			e, err = e.Annotate(s.Annotations)
		}
		return []part{{e, img}}, err
	default:
		raw, err := img.Manifest(ctx, root)
		if err != nil {
			return nil, err
		}
		if entries, err = index.Expand(ctx, raw, img.Manifest); err != nil {
			return nil, err
		}
		if !s.untouched() {
			if entries, err = patchOnly(entries, s); err != nil {
				return nil, err
			}
		}
		if entries, err = m.complete(ctx, img, entries); err != nil {
			return nil, err
		}
	}
	flat := &index.Index{}
	for _, e := range entries {
		flat.Manifests = append(flat.Manifests, e.Descriptor)
	}
	var out []part
	for _, e := range entries {
		if len(m.o.Platforms) == 0 || wanted(m.o.Platforms, flat, e.Descriptor) {
			out = append(out, part{e, img})
		}
	}
	return out, nil
}

// single makes the entry of a single image. What its config says need not be asked for when the caller says it all.
func (m *merger) single(ctx context.Context, img source.Image, s MergeSource) (index.Entry, error) {
	e, err := imageEntry(ctx, img)
	if err != nil {
		return e, err
	}
	if e, err = e.SetPlatform(s.Platform); err != nil {
		return e, err
	}
	return e.Annotate(s.Annotations)
}

// patchOnly changes the only image among entries.
func patchOnly(entries []index.Entry, s MergeSource) ([]index.Entry, error) {
	at := -1
	for i, e := range entries {
		if !e.IsImage() {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("%w: it is an index of several images: a platform or annotations cannot be set for all", ErrInvalid)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: it is an index without an image", ErrInvalid)
	}
	var err error
	if entries[at], err = entries[at].SetPlatform(s.Platform); err == nil {
		entries[at], err = entries[at].Annotate(s.Annotations)
	}
	return entries, err
}

// complete gives the images whose entries say no platform that of their configs.
func (m *merger) complete(ctx context.Context, img source.Image, entries []index.Entry) ([]index.Entry, error) {
	for i, e := range entries {
		if !e.IsImage() || e.Platform != nil && (e.Platform.OS != "" || e.Platform.Architecture != "") {
			continue
		}
		man, _, err := source.ReadManifest(ctx, img, e.Descriptor)
		if err != nil {
			return nil, err
		}
		if !index.IsConfig(man.Config.MediaType) { // an artifact that its entry does not call one
			t := man.ArtifactType
			if t == "" {
				t = man.Config.MediaType
			}
			if entries[i], err = e.SetArtifactType(t); err != nil {
				return nil, err
			}
			continue
		}
		c, err := source.ReadConfig(ctx, img, man)
		if err != nil {
			return nil, err
		}
		if entries[i], err = e.SetPlatform(index.PatchOf(c.Platform.OCI())); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// annotate puts annotations on entries and, where asked for, into manifests, which become others by that.
func (m *merger) annotate(ctx context.Context, parts []part) ([]part, error) {
	m.parts = map[digest.Digest]Source{}
	out := make([]part, 0, len(parts))
	renamed := map[digest.Digest]digest.Digest{}
	for _, p := range parts {
		var of *platform.Platform
		if p.IsImage() && p.Platform != nil {
			if v, err := platform.FromOCI(*p.Platform); err == nil {
				of = &v
			}
		}
		if set := annotationsOf(m.o.Annotations, LevelManifest, of); len(set) > 0 && p.IsImage() {
			was := p.Digest
			e, from, err := m.annotateManifest(ctx, p, set)
			if err != nil {
				return nil, err
			}
			p = part{e, from}
			renamed[was] = p.Digest
		}
		if set := annotationsOf(m.o.Annotations, LevelManifestDescriptor, of); len(set) > 0 && (p.IsImage() || index.IsIndex(p.MediaType)) {
			e, err := p.Annotate(set)
			if err != nil {
				return nil, err
			}
			p.Entry = e
		}
		out = append(out, p)
	}
	for i, p := range out {
		if now, ok := renamed[index.Attests(p.Descriptor)]; ok && index.IsAttestation(p.Descriptor) {
			e, err := p.Annotate(map[string]string{index.AnnotationReferenceDigest: now.String()})
			if err != nil {
				return nil, err
			}
			out[i].Entry = e
		}
		if m.parts[p.Digest] == nil {
			m.parts[p.Digest] = p.from
		}
	}
	return out, nil
}

// edited is a source of which one document was changed.
type edited struct {
	Source
	made map[digest.Digest][]byte
}

var _ Composite = edited{}

// Origin implements Composite.
func (e edited) Origin(d digest.Digest) Source {
	if raw, ok := e.made[d]; ok {
		return madeHere{raw}
	}
	return e.Source
}

// madeHere is one document that no place has yet.
type madeHere struct{ raw []byte }

// Ref implements Source.
func (madeHere) Ref() ref.Ref { return ref.Ref{} }

// Manifest implements Source.
func (m madeHere) Manifest(context.Context, ocispec.Descriptor) ([]byte, error) { return m.raw, nil }

// Blob implements Source.
func (m madeHere) Blob(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.raw)), nil
}

// Manifest implements Source.
func (e edited) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := e.made[desc.Digest]; ok {
		return raw, nil
	}
	return e.Source.Manifest(ctx, desc)
}

// annotateManifest changes the annotations of an image's manifest.
func (m *merger) annotateManifest(ctx context.Context, p part, set map[string]string) (index.Entry, Source, error) {
	raw, err := p.from.Manifest(ctx, p.Descriptor)
	if err != nil {
		return p.Entry, nil, err
	}
	x, err := images.EditManifest(raw)
	if err != nil {
		return p.Entry, nil, err
	}
	if err := x.Annotate(set); err != nil {
		return p.Entry, nil, err
	}
	desc, changed, err := x.Finish()
	if err != nil || desc.Digest == p.Digest {
		return p.Entry, p.from, err
	}
	for _, n := range x.Notes() {
		m.m.note("%s: %s", p.Digest, n)
	}
	made := map[digest.Digest][]byte{desc.Digest: changed}
	e, err := p.Point(desc)
	return e, edited{p.from, made}, err
}

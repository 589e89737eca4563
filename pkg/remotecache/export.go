package remotecache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	tar "github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Step is a record that a build used or made.
type Step struct {
	Key    digest.Digest
	Record solve.Record
}

// Layer is a layer as a place gets it.
type Layer struct {
	DiffID      digest.Digest
	Size        int64               // bytes, uncompressed
	Blob        *ocispec.Descriptor // nil: only the notes on it go (a base image's)
	Compression string              // of Blob
	Notes       map[string][]byte   // by kind; see [Notes]
}

// Notes are what a store knows of a layer's contents; nil when it does not know all.
func Notes(st *store.Store, diffID digest.Digest) map[string][]byte {
	notes := map[string][]byte{}
	for _, kind := range noteKinds {
		r, err := st.GetRecord(kind, diffID.Encoded())
		if err != nil {
			return nil
		}
		notes[kind] = r.Data
	}
	return notes
}

// Target is what a build has for one platform.
type Target struct {
	Platform platform.Platform
	Steps    []Step
	Layers   []Layer
}

// Content opens blobs by descriptor.
type Content interface {
	Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// lockRetry is how often a directory that another process writes to is tried again.
const lockRetry = 20 * time.Millisecond

// Export writes the records of targets to the place of s. What is there of other platforms stays; of the same, the new counts.
// content has the blobs of the layers.
func Export(ctx context.Context, env transfer.Env, s Spec, targets []Target, content Content) error {
	docs := &documents{content: content, made: map[digest.Digest][]byte{}}
	var entries []index.Entry
	var roots []transfer.Root
	for _, t := range targets {
		desc, err := docs.manifest(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		e, err := index.NewEntry(desc)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		entries = append(entries, e)
		plain := desc
		plain.Platform = nil
		roots = append(roots, transfer.Root{Desc: plain, Raw: docs.made[desc.Digest], From: docs})
	}
	var err error
	if s.Ref.Kind == ref.Registry {
		err = push(ctx, env, s.Ref, roots, entries)
	} else {
		err = write(ctx, env, s.Ref, roots, entries, docs)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// push puts the manifests into a repository and appends them to the tag.
func push(ctx context.Context, env transfer.Env, tag ref.Ref, roots []transfer.Root, entries []index.Entry) error {
	for i := range roots {
		roots[i].Names = []ref.Ref{tag.WithDigest(roots[i].Desc.Digest)}
	}
	if _, err := transfer.Move(ctx, env, roots, transfer.Options{Referrers: transfer.NoReferrers}); err != nil {
		return err
	}
	_, err := transfer.Append(ctx, env, tag, entries, transfer.AppendOptions{Replace: true})
	return err
}

// write puts them into a layout. Writers take turns.
func write(ctx context.Context, env transfer.Env, to ref.Ref, roots []transfer.Root, entries []index.Entry, docs *documents) (err error) {
	dir := to.Path
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(env.Dir, dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return fmt.Errorf("waiting for other writers: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	x, err := index.NewEditor(index.Options{})
	if err != nil {
		return err
	}
	parts := map[digest.Digest]transfer.Source{}
	img, err := env.Opener().Open(ctx, to)
	switch {
	case err == nil:
		defer func() { err = errors.Join(err, img.Close()) }()
		if index.IsIndex(img.Root().MediaType) {
			raw, err := img.Manifest(ctx, img.Root())
			if err != nil {
				return err
			}
			if x, err = index.Edit(raw); err != nil {
				return err
			}
			for _, e := range x.Entries() {
				parts[e.Digest] = img
			}
		}
	case !errors.Is(err, source.ErrNotFound) && !errors.Is(err, os.ErrNotExist):
		return err
	}
	for _, e := range entries {
		if err := x.Add(e, true); err != nil {
			return err
		}
		parts[e.Digest] = docs
	}
	desc, raw, err := x.Finish()
	if err != nil {
		return err
	}
	_, err = transfer.Move(ctx, env, []transfer.Root{{Desc: desc, Raw: raw, Parts: parts, Names: []ref.Ref{to}}},
		transfer.Options{Referrers: transfer.NoReferrers})
	return err
}

// Inline is the value of [InlineKey] for an image: the records whose layers it has. compression is that of the layers that
// were made here.
func Inline(steps []Step, compression string) (json.RawMessage, error) {
	return json.Marshal(config{Version: version, Records: records(steps), Compression: compression})
}

func records(steps []Step) []record {
	out := make([]record, 0, len(steps))
	for _, s := range steps {
		out = append(out, wireRecord(s.Key, s.Record))
	}
	slices.SortFunc(out, func(a, b record) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	return slices.CompactFunc(out, func(a, b record) bool { return a.Key == b.Key })
}

// documents are the manifests, configs and tables of an export, and the layers in content.
type documents struct {
	content Content
	made    map[digest.Digest][]byte
}

var _ transfer.Source = (*documents)(nil)

// Ref implements transfer.Source: what is made here lies nowhere yet.
func (d *documents) Ref() ref.Ref { return ref.Ref{} }

// Manifest implements transfer.Source.
func (d *documents) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := d.made[desc.Digest]; ok {
		return raw, nil
	}
	return nil, fmt.Errorf("manifest %s: %w", desc.Digest, source.ErrNotFound)
}

// Blob implements transfer.Source.
func (d *documents) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if raw, ok := d.made[desc.Digest]; ok {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	return d.content.Open(ctx, desc)
}

func (d *documents) put(mediaType string, raw []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	d.made[desc.Digest] = raw
	return desc
}

// manifest makes the manifest of one platform.
func (d *documents) manifest(ctx context.Context, t Target) (ocispec.Descriptor, error) {
	c := config{Version: version, Records: records(t.Steps)}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType}
	layers := map[digest.Digest]Layer{}
	for _, l := range t.Layers {
		if have, ok := layers[l.DiffID]; !ok || have.Blob == nil {
			layers[l.DiffID] = l
		}
	}
	for _, id := range slices.Sorted(maps.Keys(layers)) {
		l := layers[id]
		out := layer{DiffID: id, Size: l.Size, Compression: l.Compression, Blob: l.Blob}
		if l.Blob != nil {
			m.Layers = append(m.Layers, *l.Blob)
		}
		for _, kind := range slices.Sorted(maps.Keys(l.Notes)) {
			var buf bytes.Buffer
			if err := tar.Compress(ctx, &buf, bytes.NewReader(l.Notes[kind]), tar.Compression{Algorithm: tar.Zstd}); err != nil {
				return ocispec.Descriptor{}, err
			}
			desc := d.put(MediaTypeNote, buf.Bytes())
			if out.Notes == nil {
				out.Notes = map[string]ocispec.Descriptor{}
			}
			out.Notes[kind] = desc
			m.Layers = append(m.Layers, desc)
		}
		c.Layers = append(c.Layers, out)
	}
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{d.put(ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config = d.put(MediaTypeConfig, raw)
	if raw, err = json.Marshal(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := d.put(ocispec.MediaTypeImageManifest, raw)
	p := t.Platform.OCI()
	desc.Platform = &p
	return desc, nil
}

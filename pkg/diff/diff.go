// Package diff tells how two images or indexes differ: which platforms they have, and for each what is different in
// manifest, config, layers and, when asked for, files.
//
// # Invariants
//
//   - Nothing is said to be equal that was not compared: equal digests are equal contents, everything else is read.
//   - Equal inputs give equal reports.
package diff

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Options tunes Run. The zero value is the recommended one.
type Options struct {
	Platforms []platform.Platform // these only; nil: all
	Files     bool                // compare the files that a container would see, too
	Spool     string              // where layers are unpacked to; "" is the system's place for temporary files
}

// Status is how something differs.
type Status string

// The statuses.
const (
	Same    Status = "same"
	Changed Status = "changed"
	Added   Status = "added"   // only the second has it
	Removed Status = "removed" // only the first has it
	// Repacked is a layer of the same content in another compression.
	Repacked Status = "repacked"
)

// Report is how two things differ.
type Report struct {
	A         Side       `json:"a"`
	B         Side       `json:"b"`
	Same      bool       `json:"same"`
	Index     []Change   `json:"index,omitempty"` // what they say of themselves, if they are indexes
	Platforms []Platform `json:"platforms"`
	Others    []Other    `json:"others,omitempty"` // attestations and artifacts that only one has
}

// Side is one of the two.
type Side struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
}

// Change is one value that differs. Path is the way to it in the document: "config.Env.PATH".
type Change struct {
	Path string `json:"path"`
	A    string `json:"a,omitempty"` // JSON; "" when it is not there
	B    string `json:"b,omitempty"`
}

// Platform is how the images of a platform differ.
type Platform struct {
	Platform string        `json:"platform"`
	Status   Status        `json:"status"`
	A        digest.Digest `json:"a,omitempty"`
	B        digest.Digest `json:"b,omitempty"`
	Manifest []Change      `json:"manifest,omitempty"`
	Config   []Change      `json:"config,omitempty"`
	Layers   []Layer       `json:"layers,omitempty"`
	Files    []File        `json:"files,omitempty"`
}

// Layer is a layer that one of two images has, or that is in both.
type Layer struct {
	Status Status        `json:"status"`
	DiffID digest.Digest `json:"diffID"`
	A      digest.Digest `json:"a,omitempty"`
	B      digest.Digest `json:"b,omitempty"`
	SizeA  int64         `json:"sizeA,omitempty"` // as it is transferred, bytes
	SizeB  int64         `json:"sizeB,omitempty"`
	By     string        `json:"createdBy,omitempty"`
}

// Other is an entry that stands for no platform.
type Other struct {
	Status Status        `json:"status"`
	Kind   string        `json:"kind"`
	Digest digest.Digest `json:"digest"`
}

// Run compares what was opened.
func Run(ctx context.Context, a, b source.Image, o Options) (*Report, error) {
	rep := &Report{A: side(a), B: side(b), Platforms: []Platform{}}
	x, err := read(ctx, a, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Ref(), err)
	}
	y, err := read(ctx, b, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Ref(), err)
	}
	if len(o.Platforms) > 0 && len(x.images)+len(y.images) == 0 {
		return nil, fmt.Errorf("%w: neither has an image for these platforms", source.ErrNotFound)
	}
	if x.index != nil || y.index != nil {
		if rep.Index, err = documents(x.index, y.index, "manifests"); err != nil {
			return nil, err
		}
	}
	if len(x.order) == 1 && len(y.order) == 1 && x.order[0] != y.order[0] { // two images, whatever they are for
		y.images[x.order[0]], y.order = y.images[y.order[0]], x.order
	}
	names := slices.Clone(x.order)
	if !slices.Equal(x.order, y.order) && sameSet(x.order, y.order) {
		rep.Index = append(rep.Index, Change{Path: "manifests", A: listed(x.order), B: listed(y.order)})
	}
	for _, n := range y.order {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	rep.Platforms = make([]Platform, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	if o.Files {
		g.SetLimit(1) // what is unpacked takes space
	}
	for i, n := range names {
		g.Go(func() (err error) {
			rep.Platforms[i], err = images(gctx, n, a, b, x.images[n], y.images[n], o)
			if err != nil {
				err = fmt.Errorf("%s: %w", n, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	rep.Others = others(x, y)
	rep.Same = rep.A.Digest == rep.B.Digest || len(rep.Index)+len(rep.Others) == 0 && slices.Equal(x.order, y.order) &&
		!slices.ContainsFunc(rep.Platforms, func(p Platform) bool { return p.Status != Same })
	return rep, nil
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// listed is an order of platforms as JSON.
func listed(names []string) string { return text(jsontree.NewStrings(names)) }

func side(img source.Image) Side {
	return Side{Name: img.Ref().String(), Digest: img.Root().Digest, MediaType: img.Root().MediaType}
}

// contents are what an image or index leads to.
type contents struct {
	index  []byte // nil: a single image
	images map[string]ocispec.Descriptor
	order  []string
	others map[digest.Digest]string // digest → kind
}

func read(ctx context.Context, img source.Image, o Options) (*contents, error) {
	c := &contents{images: map[string]ocispec.Descriptor{}, others: map[digest.Digest]string{}}
	root := img.Root()
	var err error
	if index.IsIndex(root.MediaType) {
		if c.index, err = img.Manifest(ctx, root); err != nil {
			return nil, err
		}
	}
	entries, err := source.List(ctx, img)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch {
		case e.Err != nil:
			return nil, e.Err
		case e.Kind == source.EntryImage:
			if len(o.Platforms) > 0 && !slices.Contains(o.Platforms, e.Platform) {
				continue
			}
			name := e.Platform.String()
			for n := 2; c.images[name].Digest != "" && c.images[name].Digest != e.Desc.Digest; n++ { // an index with duplicates
				name = fmt.Sprintf("%s (%d)", e.Platform, n)
			}
			if c.images[name].Digest == "" {
				c.order = append(c.order, name)
			}
			c.images[name] = e.Desc
		case len(o.Platforms) == 0:
			c.others[e.Desc.Digest] = string(e.Kind)
		}
	}
	return c, nil
}

// others are the entries that only one of two has.
func others(a, b *contents) []Other {
	var out []Other
	for _, s := range []struct {
		has, lacks *contents
		status     Status
	}{{a, b, Removed}, {b, a, Added}} {
		for _, d := range slices.Sorted(maps.Keys(s.has.others)) {
			if _, both := s.lacks.others[d]; !both {
				out = append(out, Other{Status: s.status, Kind: s.has.others[d], Digest: d})
			}
		}
	}
	return out
}

// images compares the images of one platform.
func images(ctx context.Context, name string, from, to source.Image, a, b ocispec.Descriptor, o Options) (p Platform, err error) {
	p = Platform{Platform: name, A: a.Digest, B: b.Digest, Status: Changed}
	switch {
	case a.Digest == "":
		p.Status = Added
		return p, nil
	case b.Digest == "":
		p.Status = Removed
		return p, nil
	case a.Digest == b.Digest && entry(a) == entry(b):
		p.Status = Same
		return p, nil
	}
	x, err := one(ctx, from, a)
	if err != nil {
		return p, err
	}
	y, err := one(ctx, to, b)
	if err != nil {
		return p, err
	}
	if p.Manifest, err = documents(x.raw, y.raw, "config", "layers"); err != nil {
		return p, err
	}
	p.Manifest = append(p.Manifest, entryChanges(a, b)...)
	but := []string{"rootfs"}
	if !slices.Equal(x.config.DiffIDs, y.config.DiffIDs) { // then the layers tell it
		but = append(but, "history")
	}
	if p.Config, err = documents(x.config.Raw, y.config.Raw, but...); err != nil {
		return p, err
	}
	p.Layers = layers(x, y)
	for i, l := range x.manifest.Layers {
		if i < len(y.manifest.Layers) && l.Digest == y.manifest.Layers[i].Digest && l.MediaType != y.manifest.Layers[i].MediaType {
			p.Manifest = append(p.Manifest, Change{Path: fmt.Sprintf("layers[%d].mediaType", i), A: quoted(l.MediaType, true), B: quoted(y.manifest.Layers[i].MediaType, true)})
		}
	}
	if !o.Files {
		return p, nil
	}
	p.Files, err = files(ctx, x, y, o)
	return p, err
}

// entry is what an entry of an index says beside which manifest it is.
func entry(d ocispec.Descriptor) string {
	var parts []string
	if d.Platform != nil {
		parts = append(parts, fmt.Sprintf("%+v", *d.Platform))
	}
	for _, k := range slices.Sorted(maps.Keys(d.Annotations)) {
		parts = append(parts, k+"="+d.Annotations[k])
	}
	return strings.Join(parts, "\n")
}

// entryChanges compares the annotations of two entries.
func entryChanges(a, b ocispec.Descriptor) []Change {
	var out []Change
	keys := slices.Collect(maps.Keys(a.Annotations))
	for k := range b.Annotations {
		if _, both := a.Annotations[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		x, inA := a.Annotations[k]
		y, inB := b.Annotations[k]
		if x != y || inA != inB {
			out = append(out, Change{Path: "descriptor.annotations." + k, A: quoted(x, inA), B: quoted(y, inB)})
		}
	}
	if a.Platform != nil && b.Platform != nil {
		if x, y := fmt.Sprintf("%+v", *a.Platform), fmt.Sprintf("%+v", *b.Platform); x != y {
			out = append(out, Change{Path: "descriptor.platform", A: x, B: y})
		}
	}
	return out
}

// half is one of two images.
type half struct {
	img      source.Image
	raw      []byte
	manifest ocispec.Manifest
	config   source.Config
}

func one(ctx context.Context, img source.Image, desc ocispec.Descriptor) (*half, error) {
	h := &half{img: img}
	var err error
	if h.manifest, h.raw, err = source.ReadManifest(ctx, img, desc); err != nil {
		return nil, err
	}
	if h.config, err = source.ReadConfig(ctx, img, h.manifest); err != nil {
		return nil, err
	}
	return h, nil
}

// by says what made a layer, from the history.
func (h *half) by(layer int) string {
	for _, e := range h.config.Image.History {
		if e.EmptyLayer {
			continue
		}
		if layer == 0 {
			return e.CreatedBy
		}
		layer--
	}
	return ""
}

// layers lines up the layers of two images: those that they have in common in their order, and between them what is
// removed and added.
func layers(a, b *half) []Layer {
	x, y := a.config.DiffIDs, b.config.DiffIDs
	// The longest common subsequence.
	best := make([][]int, len(x)+1)
	for i := range best {
		best[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				best[i][j] = best[i+1][j+1] + 1
			} else {
				best[i][j] = max(best[i+1][j], best[i][j+1])
			}
		}
	}
	var out []Layer
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			l, m := a.manifest.Layers[i], b.manifest.Layers[j]
			status := Same
			if l.Digest != m.Digest {
				status = Repacked
			}
			out = append(out, Layer{Status: status, DiffID: x[i], A: l.Digest, B: m.Digest, SizeA: l.Size, SizeB: m.Size, By: b.by(j)})
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && best[i+1][j] >= best[i][j+1]:
			l := a.manifest.Layers[i]
			out = append(out, Layer{Status: Removed, DiffID: x[i], A: l.Digest, SizeA: l.Size, By: a.by(i)})
			i++
		default:
			m := b.manifest.Layers[j]
			out = append(out, Layer{Status: Added, DiffID: y[j], B: m.Digest, SizeB: m.Size, By: b.by(j)})
			j++
		}
	}
	return out
}

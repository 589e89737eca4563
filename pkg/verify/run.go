package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Options tunes Run. The zero value is the recommended one.
type Options struct {
	Platforms []platform.Platform // only these; none: all
	Allow     []Allow
	Limits    layer.Limits
	// KnownOnly reads no layer: an image of which a layer's facts are not known is judged by its documents only.
	KnownOnly bool
}

// Reader gives what the layers of images say: what is known already, else by reading them. It is safe for concurrent use.
type Reader struct {
	Cache  facts.Cache
	Limits layer.Limits
	Spool  string // for temporary files; "" is the system's directory
}

// Report is what was found in one reference.
type Report struct {
	Name      string
	Digest    digest.Digest
	Platforms []string // that were judged
	Findings  []Finding
	Unknown   int   // images whose layers were not all known (KnownOnly)
	Read      int64 // bytes of layers, as they are stored, that were read; 0: all was known
}

// Run judges the images of an index, or a single one.
func (r *Reader) Run(ctx context.Context, img source.Image, o Options) (*Report, error) {
	report := &Report{Name: img.Ref().String(), Digest: img.Root().Digest, Findings: []Finding{}}
	entries, err := source.List(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", img.Ref(), err)
	}
	seen := map[digest.Digest]bool{}
	for _, e := range entries {
		if e.Kind != source.EntryImage || seen[e.Desc.Digest] {
			continue
		}
		seen[e.Desc.Digest] = true
		if e.Err != nil {
			report.broken(e.Desc, "", e.Err)
			continue
		}
		if len(o.Platforms) > 0 && !slices.Contains(o.Platforms, e.Platform) {
			continue
		}
		report.Platforms = append(report.Platforms, e.Platform.String())
		if err := r.image(ctx, img, e, o, report); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", img.Ref(), e.Platform, err)
		}
	}
	if len(report.Platforms) == 0 && len(o.Platforms) > 0 {
		return nil, fmt.Errorf("%s: %w: no image for %s", img.Ref(), source.ErrNotFound, o.Platforms[0])
	}
	return report, nil
}

// Entry judges the image of one entry of an index that is being made.
func (r *Reader) Entry(ctx context.Context, img source.Image, entry ocispec.Descriptor, o Options) (*Report, error) {
	report := &Report{Name: img.Ref().String(), Digest: entry.Digest, Findings: []Finding{}}
	e := source.Entry{Desc: entry, Kind: source.EntryImage}
	if entry.Platform == nil {
		return report, nil
	}
	var err error
	if e.Platform, err = platform.FromOCI(*entry.Platform); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", img.Ref(), source.ErrInvalid, err)
	}
	report.Platforms = []string{e.Platform.String()}
	if err := r.image(ctx, img, e, o, report); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", img.Ref(), e.Platform, err)
	}
	return report, nil
}

// broken reports an image that cannot be read.
func (report *Report) broken(desc ocispec.Descriptor, p string, err error) {
	report.Findings = append(report.Findings, Finding{
		Rule: RuleBroken, Level: Error, Platform: p, Digest: desc.Digest, Text: desc.Digest.String() + ": " + err.Error(),
	})
}

// image judges one image.
func (r *Reader) image(ctx context.Context, img source.Image, e source.Entry, o Options, report *Report) error {
	p := e.Platform.String()
	m, _, err := source.ReadManifest(ctx, img, e.Desc)
	var config source.Config
	if err == nil {
		config, err = source.ReadConfig(ctx, img, m)
	}
	switch {
	case err == nil:
	case o.KnownOnly && errors.Is(err, source.ErrNotFound):
		report.Unknown++
		return nil
	case !itsFault(err):
		return err
	default:
		report.broken(e.Desc, p, err)
		return nil
	}
	claimed := e.Platform
	if agreed, err := source.Agree(e.Desc, config); err != nil {
		report.Findings = append(report.Findings, Finding{Rule: RuleConfig, Level: Error, Platform: p, Digest: e.Desc.Digest, Text: err.Error()})
	} else {
		claimed = agreed
	}
	in := Input{Platform: claimed, Digest: e.Desc.Digest, Config: config.Image, Allow: o.Allow}
	if o.KnownOnly && !r.knowsAll(m.Layers, config.DiffIDs) {
		report.Unknown++
		return nil
	}
	if err := r.layers(ctx, img, m.Layers, config.DiffIDs, &in, report); err != nil {
		return err
	}
	found, err := Judge(in)
	if err != nil {
		if !itsFault(err) {
			return err
		}
		report.broken(e.Desc, p, err)
		return nil
	}
	report.Findings = append(report.Findings, found...)
	return nil
}

// layers gives what all layers of an image say. One that is broken or not to be had is reported, and left out.
func (r *Reader) layers(ctx context.Context, img source.Image, descs []ocispec.Descriptor, diffIDs []digest.Digest, in *Input, report *Report) error {
	in.Layers = make([]Layer, len(descs))
	for i, desc := range descs {
		l, read, err := r.Layer(ctx, img, desc, diffIDs[i])
		report.Read += read
		switch {
		case err == nil:
			in.Layers[i] = l
		case elsewhere(desc, err):
			in.Unread = append(in.Unread, i)
		case itsFault(err):
			report.broken(desc, in.Platform.String(), err)
			in.Unread = append(in.Unread, i)
		default:
			return err
		}
	}
	return nil
}

// itsFault tells what is wrong with an image from what is wrong with the way to it.
func itsFault(err error) bool {
	for _, kind := range []error{
		source.ErrInvalid, source.ErrNotFound, source.ErrCorrupt,
		layer.ErrInvalid, layer.ErrUnsafe, layer.ErrLimit, layer.ErrType, layer.ErrMediaType,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// elsewhere reports whether a layer is one that registries need not have: of Windows's base images.
func elsewhere(desc ocispec.Descriptor, err error) bool {
	foreign := strings.Contains(desc.MediaType, "nondistributable") || strings.Contains(desc.MediaType, ".foreign.")
	return errors.Is(err, source.ErrNotFound) && foreign
}

// knowsAll reports whether no layer has to be read.
func (r *Reader) knowsAll(layers []ocispec.Descriptor, diffIDs []digest.Digest) bool {
	for i, desc := range layers {
		if _, ok := r.known(desc, diffIDs[i]); !ok {
			return false
		}
	}
	return true
}

// known looks a layer up, by the digest of the very blob that the manifest names: what a config says of it is
// believed only when it was found to be so here.
func (r *Reader) known(desc ocispec.Descriptor, diffID digest.Digest) (Layer, bool) {
	if desc.Digest != diffID {
		d, ok := r.Cache.Unpacked(desc.Digest)
		if !ok || d != diffID {
			return Layer{}, false
		}
	}
	toc, f, ok := r.Cache.Get(diffID)
	return Layer{TOC: toc, Facts: f}, ok
}

// Layer gives what a layer says. read is how many bytes of it were read, as they are stored.
func (r *Reader) Layer(ctx context.Context, img source.Image, desc ocispec.Descriptor, diffID digest.Digest) (l Layer, read int64, err error) {
	if l, ok := r.known(desc, diffID); ok {
		return l, 0, nil
	}
	toc, f, err := r.read(ctx, img, desc, diffID)
	if err != nil {
		return Layer{}, 0, fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	if toc.DiffID != diffID {
		return Layer{}, desc.Size, fmt.Errorf("%w: layer %s unpacks to %s, but the config says %s", source.ErrCorrupt, desc.Digest, toc.DiffID, diffID)
	}
	if desc.Digest != diffID {
		if err := r.Cache.PutUnpacked(desc.Digest, diffID); err != nil {
			return Layer{}, desc.Size, err
		}
	}
	return Layer{TOC: toc, Facts: f}, desc.Size, r.Cache.Put(toc, f)
}

func (r *Reader) read(ctx context.Context, img source.Image, desc ocispec.Descriptor, diffID digest.Digest) (_ *layer.TOC, _ *facts.Layer, err error) {
	blob, err := img.Blob(ctx, desc)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	o := facts.Options{Limits: r.Limits, Spool: r.Spool}
	var in io.Reader
	var tar io.ReadCloser
	if desc.Digest == diffID && strings.HasSuffix(desc.MediaType, ".tar") { // the blob is the tar, and its reader verifies it
		o.DiffID = diffID
		next := newAhead(taken(blob))
		defer next.close()
		tar, err = layer.DecompressLayer(ctx, next, desc.MediaType, r.Limits)
		in = tar
	} else if tar, err = layer.DecompressLayer(ctx, blob, desc.MediaType, r.Limits); err == nil {
		next := newAhead(tar, nil)
		defer next.close()
		in = next
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, tar.Close()) }()
	return facts.Read(ctx, in, o) // to the end, where the verdict is: so does a decoder, and whoever reads a plain tar
}

// taken takes a blob apart, if it can be.
func taken(blob io.Reader) (raw io.Reader, check func(p []byte, err error) error) {
	if b, ok := blob.(bare); ok {
		return b.Bare()
	}
	return blob, nil
}

package inspect

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// maxFetches is how many manifests and configs are fetched at once.
const maxFetches = 8

// Config is an image's config: what image-spec knows of it for templates, and in JSON all of it as it was written.
type Config struct {
	ocispec.Image
	Raw []byte
}

// MarshalJSON returns the config with every field it has.
func (c Config) MarshalJSON() ([]byte, error) {
	if c.Raw == nil {
		return jsontree.Marshal(c.Image)
	}
	return c.Raw, nil
}

// reader fills a result, each part when it is first asked for.
type reader struct {
	img  source.Image
	res  *Result
	head bool // Index or Manifest is read
	done bool // the images are read
}

// document parses what was fetched.
func (r *reader) document() error {
	if r.head {
		return nil
	}
	r.head = true
	if index.IsIndex(r.res.Desc.MediaType) {
		idx, err := index.Parse(r.res.Raw)
		if err != nil {
			return err
		}
		r.res.Index = idx
		return nil
	}
	m, err := index.ParseManifest(r.res.Raw)
	if err != nil {
		return err
	}
	r.res.Manifest = &m
	return nil
}

// images reads manifests and configs.
func (r *reader) images(ctx context.Context) error {
	if r.done {
		return nil
	}
	r.done = true
	if err := r.document(); err != nil {
		return err
	}
	if r.res.Manifest != nil {
		return r.single(ctx)
	}
	entries, err := source.List(ctx, r.img)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Kind {
		case source.EntryAttestation:
			r.res.Attestations = append(r.res.Attestations, Attestation{Desc: e.Desc, Attests: e.Attests})
		case source.EntryOther:
			r.res.Others = append(r.res.Others, e.Desc)
		default:
			// Why a platform is not known is found again, and told, when the image is read.
			r.res.Images = append(r.res.Images, Image{Platform: e.Platform, Desc: e.Desc})
		}
	}
	warnings := make([]string, len(r.res.Images))
	err = each(ctx, len(r.res.Images), func(ctx context.Context, i int) error {
		err := r.read(ctx, &r.res.Images[i])
		if err == nil || fatal(err) {
			return err
		}
		warnings[i] = fmt.Sprintf("%s: %v", r.res.Images[i].name(), err)
		return nil
	})
	for _, w := range warnings {
		if w != "" {
			r.warn("%s", w)
		}
	}
	r.warnDuplicates()
	return err
}

// single reads the config of an image that stands alone. An artifact has none.
func (r *reader) single(ctx context.Context) error {
	if !index.IsConfig(r.res.Manifest.Config.MediaType) {
		r.res.Others = append(r.res.Others, r.res.Desc)
		return nil
	}
	img := Image{Desc: r.res.Desc}
	if err := r.read(ctx, &img); err != nil {
		if fatal(err) {
			return err
		}
		r.warn("%s: %v", img.name(), err)
	}
	r.res.Images = append(r.res.Images, img)
	return nil
}

// read completes one image.
func (r *reader) read(ctx context.Context, img *Image) error {
	m, _, err := source.ReadManifest(ctx, r.img, img.Desc)
	if err != nil {
		return err
	}
	img.Layers = len(m.Layers)
	for _, l := range m.Layers {
		img.Size += l.Size
	}
	c, err := source.ReadConfig(ctx, r.img, m)
	if c.Raw != nil {
		img.Config, img.Created = &Config{Image: c.Image, Raw: c.Raw}, c.Created
	}
	if img.Platform.IsZero() {
		img.Platform = c.Platform
	}
	if err != nil {
		return err
	}
	p, err := source.Agree(img.Desc, c)
	if err == nil {
		img.Platform = p
	}
	return err
}

func (r *reader) warn(format string, a ...any) {
	r.res.Warnings = append(r.res.Warnings, fmt.Sprintf(format, a...))
}

// warnDuplicates tells of platforms that several entries claim: clients take the first (ROBUSTNESS.md b11).
func (r *reader) warnDuplicates() {
	first := make(map[string]digest.Digest)
	for _, img := range r.res.Images {
		if img.Platform.IsZero() {
			continue
		}
		p := img.Platform.String()
		if d, ok := first[p]; ok {
			r.warn("%s stands for several manifests: clients take %s and never %s", p, d, img.Desc.Digest)
			continue
		}
		first[p] = img.Desc.Digest
	}
}

func (i Image) name() string {
	if i.Platform.IsZero() {
		return i.Desc.Digest.String()
	}
	return i.Platform.String()
}

// fatal tells errors of the way (network, credentials, cancellation) from those of the image itself.
func fatal(err error) bool {
	for _, kind := range []error{source.ErrInvalid, source.ErrNotFound} {
		if errors.Is(err, kind) {
			return false
		}
	}
	return true
}

// each calls f for 0 to n-1, a few at once, and stops at the first error.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	slots := make(chan struct{}, maxFetches)
	for i := range n {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

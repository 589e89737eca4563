package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// VerifyMode says what comes of an image whose contents are not of its platform.
type VerifyMode string

// The modes.
const (
	VerifyError VerifyMode = ""     // errors end the build before anything leaves; the rest is a warning
	VerifyWarn  VerifyMode = "warn" // all is a warning
	VerifyOff   VerifyMode = "off"
)

// ErrFindings is the kind of "the contents are not of the platform".
var ErrFindings = verify.ErrFindings

// gate judges what was built. It reads no layer whose facts were gathered when it was made or pulled.
func (f *finisher) gate(ctx context.Context, images []image.Image) error {
	if f.verify == VerifyOff {
		return nil
	}
	allow := append([]verify.Allow{}, f.allow...)
	for _, a := range f.build.Allow {
		allow = append(allow, verify.Allow{Path: a.Path, Platform: a.Platform})
	}
	var refused []verify.Finding
	said := map[digest.Digest]verify.Layer{} // platforms share layers
	for i, img := range images {
		in := verify.Input{Platform: img.Platform, Allow: allow}
		if err := json.Unmarshal(img.Config, &in.Config); err != nil {
			return fmt.Errorf("the config of %s: %w", img.Platform, err)
		}
		for _, l := range f.results[i].Layers {
			known, ok := said[l.DiffID]
			if !ok {
				var err error
				if known, err = f.facts(ctx, l); err != nil {
					return err
				}
				said[l.DiffID] = known
			}
			in.Layers = append(in.Layers, known)
		}
		found, err := verify.Judge(in)
		if err != nil {
			return fmt.Errorf("checking the contents of %s: %w", img.Platform, err)
		}
		for _, x := range found {
			switch {
			case x.Level == verify.Error && f.verify == VerifyError:
				refused = append(refused, x)
			case x.Level.AtLeast(verify.Warning):
				f.events.Emit(event.Event{Kind: event.Warning, Text: x.String()})
			}
		}
	}
	if len(refused) > 0 {
		return &verify.FindingsError{Findings: refused}
	}
	return nil
}

// facts gives what a layer says: what was kept, else by reading it.
func (f *finisher) facts(ctx context.Context, l solve.Layer) (_ verify.Layer, err error) {
	cache := facts.Cache{Store: f.store}
	toc, known, ok := cache.Get(l.DiffID)
	if !ok && f.worker.Knows(ctx, l.DiffID) { // a cache of another machine does
		toc, known, ok = cache.Get(l.DiffID)
	}
	if ok {
		return verify.Layer{TOC: toc, Facts: known}, nil
	}
	r, err := f.worker.OpenLayer(ctx, l)
	if err != nil {
		return verify.Layer{}, err
	}
	toc, known, err = facts.Read(ctx, r, facts.Options{})
	if err := errors.Join(err, r.Close()); err != nil {
		return verify.Layer{}, fmt.Errorf("reading layer %s: %w", l.DiffID, err)
	}
	return verify.Layer{TOC: toc, Facts: known}, cache.Put(toc, known)
}

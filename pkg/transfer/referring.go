package transfer

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/source"
)

// Referrer is a manifest that refers to another, where that is.
type Referrer struct {
	Desc    ocispec.Descriptor
	From    Source
	Of      digest.Digest // what it is about
	Subject digest.Digest // the same, if the manifest itself says so; "" of what a tag of cosign's names
}

// Related finds what refers to manifests that img reaches: referrers, and what cosign's tags name.
func Related(ctx context.Context, env Env, img source.Image, of []ocispec.Descriptor) ([]Referrer, error) {
	f := &relatedFinder{m: newMover(env, Options{}), from: img.Ref()}
	f.from.Tag, f.from.Digest = "", ""
	found := make([][]Root, len(of))
	g, gctx := errgroup.WithContext(ctx)
	for i, d := range of {
		if i == 0 { // it tells whether to ask for the others
			var err error
			if found[i], err = f.one(ctx, d.Digest, f.from); err != nil {
				return nil, err
			}
			continue
		}
		g.Go(func() (err error) {
			found[i], err = f.one(gctx, d.Digest, f.from)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []Referrer
	for i, roots := range found {
		for _, r := range roots {
			out = append(out, Referrer{Desc: r.Desc, From: r.From, Of: of[i].Digest, Subject: r.Subject})
		}
	}
	return out, nil
}

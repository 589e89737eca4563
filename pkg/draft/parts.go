package draft

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// part is an image of a draft whose content lies in a registry: documents come from the store, and the rest from there.
type part struct {
	source.Image         // the draft, as the store has it
	at           ref.Ref // where it lies
}

var _ transfer.Source = part{}

// Ref is where the image lies, so that a destination at the same registry mounts from there.
func (p part) Ref() ref.Ref { return p.at }

// parts says of every manifest that the index raw of img names, nested ones included, where its content lies, if that is not
// the store. Of several places the one nearest to the destinations counts: the same repository, else the same registry.
func (d *Drafts) parts(ctx context.Context, img source.Image, raw []byte, destinations []ref.Ref) (map[digest.Digest]transfer.Source, error) {
	out := map[digest.Digest]transfer.Source{}
	seen := map[digest.Digest]bool{}
	var visit func(raw []byte) error
	visit = func(raw []byte) error {
		idx, err := index.Parse(raw)
		if err != nil {
			return err
		}
		for _, m := range idx.Manifests {
			if seen[m.Digest] {
				continue
			}
			seen[m.Digest] = true
			if index.IsIndex(m.MediaType) {
				nested, err := img.Manifest(ctx, m)
				if err != nil {
					return err
				}
				if err := visit(nested); err != nil {
					return err
				}
				continue
			}
			at, ok, err := d.nearest(m.Digest, destinations)
			if err != nil {
				return err
			}
			if ok {
				out[m.Digest] = part{img, at}
			}
		}
		return nil
	}
	return out, visit(raw)
}

// nearest returns the best of the places of a manifest.
func (d *Drafts) nearest(m digest.Digest, destinations []ref.Ref) (best ref.Ref, ok bool, err error) {
	texts, err := d.Store.Origins(m)
	if err != nil {
		return ref.Ref{}, false, err
	}
	rank := 0
	for _, text := range texts {
		r, err := ref.Parse(text)
		if err != nil || r.Kind != ref.Registry {
			continue
		}
		now := 1
		for _, to := range destinations {
			switch {
			case to.Kind != ref.Registry || to.Host != r.Host:
			case to.Repo == r.Repo:
				now = 3
			default:
				now = max(now, 2)
			}
		}
		if now > rank {
			rank, best, ok = now, r.WithDigest(m), true
		}
	}
	return best, ok, nil
}

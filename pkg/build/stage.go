package build

import (
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/stage"
)

// staged takes a product apart: each platform's image goes under its tag of the stage, in the repository of every name.
func (f *finisher) staged(product output.Product) ([]output.Product, error) {
	out := make([]output.Product, 0, len(product.Images))
	for i, img := range product.Images {
		one := product
		one.Images, one.Names = []image.Image{img}, nil
		tag, err := stage.Tag(f.stage, img.Platform)
		if err != nil {
			return nil, err
		}
		for _, n := range product.Names {
			if to := n.WithTag(tag); !slices.Contains(one.Names, to) {
				one.Names = append(one.Names, to)
			}
		}
		entry := img.Desc
		entry.Annotations = f.build.Targets[i].EntryAnnotations
		if one.Root, one.Raw, err = stage.Record(f.stage, []ocispec.Descriptor{entry}, f.build.IndexAnnotations, f.clock()); err != nil {
			return nil, fmt.Errorf("staging the image of %s: %w", img.Platform, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// checkStage holds a request for a stage to what a stage can be, before anything is built.
func checkStage(req Request, o Options, plans []plan) error {
	if req.Stage == "" {
		return nil
	}
	if err := stage.CheckID(req.Stage); err != nil {
		return err
	}
	if o.Clock == nil {
		return fmt.Errorf("%w: a stage needs a clock", stage.ErrInvalid)
	}
	if !slices.ContainsFunc(plans, func(p plan) bool { return p.pushes() }) {
		return fmt.Errorf("%w: a stage is in a registry: push to one", stage.ErrInvalid)
	}
	return nil
}

package edit

import (
	"context"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Mutate changes the config of every image of src, and whatever o says, and brings the result to names. An edit of the
// platform is for one image: choose it with [transfer.Options].Platforms when there are several.
func Mutate(ctx context.Context, env transfer.Env, src ref.Ref, names []ref.Ref, change image.Edit, o Options) (Result, error) {
	return run(ctx, env, src, names, &mutate{change: change}, o)
}

type mutate struct {
	change image.Edit
}

func (*mutate) close() error { return nil }

func (m *mutate) apply(_ context.Context, s *subject) (*product, error) {
	config, err := image.EditConfig(s.config.Raw, m.change)
	if err != nil {
		return nil, err
	}
	x, err := image.EditManifest(s.raw)
	if err != nil {
		return nil, err
	}
	return finish(x, config, m.change)
}

// finish makes a product of an edited manifest and config.
func finish(x *image.ManifestEditor, config []byte, change image.Edit) (*product, error) {
	if _, err := x.SetConfig(config); err != nil {
		return nil, err
	}
	_, raw, err := x.Finish()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return &product{manifest: raw, docs: [][]byte{config}, patch: change.Platform, notes: x.Notes()}, nil
}

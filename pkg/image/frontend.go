package image

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// commentExporter stands in the history of layers that a frontend's config says nothing of.
const commentExporter = "buildkit.exporter.image.v0"

// frontendConfig completes a config that a frontend of BuildKit wrote, by the rules of BuildKit's exporter and byte for
// byte as that does (exporter/containerimage/writer.go): diff_ids from the layers, a history that fits them, times.
func frontendConfig(c *graph.ImageConfig, layers []Layer) ([]byte, error) {
	var known ocispec.Image
	if err := json.Unmarshal(c.Raw, &known); err != nil {
		return nil, fmt.Errorf("%w: the frontend's config: %w", ErrInvalid, err)
	}
	if known.OS == "" || known.Architecture == "" {
		return nil, fmt.Errorf("%w: the frontend's config names no platform", ErrInvalid)
	}
	var base ocispec.Image
	if len(c.Base) > 0 {
		if err := json.Unmarshal(c.Base, &base); err != nil {
			return nil, fmt.Errorf("%w: the config of the frontend's base: %w", ErrInvalid, err)
		}
	}
	var epoch *time.Time
	if c.Epoch != nil {
		t := time.Unix(*c.Epoch, 0).UTC()
		epoch = &t
	}
	history := fitHistory(known.History, layers)
	if epoch != nil {
		clampHistory(history, base.History, *epoch)
	}
	created := known.Created
	switch {
	case created == nil:
		for i := range history {
			if history[i].Created != nil {
				created = history[i].Created
			}
		}
	case epoch != nil && created.After(*epoch):
		created = epoch
	}

	tree := map[string]any{}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(c.Raw, &raw); err != nil {
		return nil, fmt.Errorf("%w: the frontend's config: %w", ErrInvalid, err)
	}
	for k, v := range raw {
		tree[k] = v
	}
	rootfs := ocispec.RootFS{Type: "layers"}
	for _, l := range layers {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.DiffID)
	}
	tree["rootfs"], tree["history"] = rootfs, history
	if _, ok := raw["created"]; !ok || created != known.Created {
		tree["created"] = created
	}
	out, err := json.Marshal(tree) // keys sorted
	if err != nil {
		return nil, fmt.Errorf("%w: the frontend's config: %w", ErrInvalid, err)
	}
	return out, nil
}

// fitHistory makes the entries that are not empty as many as the layers, and gives every entry a time.
func fitHistory(history []ocispec.History, layers []Layer) []ocispec.History {
	out := make([]ocispec.History, 0, len(history))
	at := 0
	for _, h := range history {
		if !h.EmptyLayer && at >= len(layers) {
			h.EmptyLayer = true
		}
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = layers[at].Created
			}
			at++
		}
		out = append(out, h)
	}
	for _, l := range layers[at:] {
		h := ocispec.History{Created: l.Created, Comment: commentExporter}
		if l.History != nil {
			h.CreatedBy = l.History.CreatedBy
		}
		out = append(out, h)
	}

	// An entry without a time has that of the first new layer, or else of the last entry before it.
	var created *time.Time
	missing := false
	for _, h := range out {
		if h.Created == nil {
			missing = true
			continue
		}
		created = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i := range out {
		switch {
		case out[i].Created == nil:
			missing = true
			out[i].Created = created
		case missing:
			created = out[i].Created
		}
	}
	return out
}

// clampHistory makes no entry later than epoch but those that are the base's.
func clampHistory(history, base []ocispec.History, epoch time.Time) {
	own := false
	for i := range history {
		if !own && i < len(base) && reflect.DeepEqual(history[i], base[i]) {
			continue
		}
		own = true
		if history[i].Created == nil || history[i].Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}

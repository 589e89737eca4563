package build

import (
	"encoding/json"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/report"
)

// Report is r's images as a report shows them: each layer with the history entry that it belongs to.
func (r Result) Report() []report.Image {
	images := make([]report.Image, 0, len(r.Images))
	for _, img := range r.Images {
		var config ocispec.Image
		_ = json.Unmarshal(img.Config, &config) // made by image.Assemble; without history there are no names, that is all
		var names []string
		for _, h := range config.History {
			if !h.EmptyLayer {
				names = append(names, h.CreatedBy)
			}
		}
		out := report.Image{Platform: img.Platform.String(), Digest: img.Desc.Digest.String()}
		for i, l := range img.Layers {
			rl := report.Layer{Digest: l.Digest.String(), Size: l.Size}
			if len(names) == len(img.Layers) {
				rl.CreatedBy = names[i]
			}
			out.Layers = append(out.Layers, rl)
		}
		images = append(images, out)
	}
	return images
}

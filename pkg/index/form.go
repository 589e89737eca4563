package index

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// What only OCI's form can hold: of an index and of its entries (docs of Docker's manifest list know neither).
var (
	onlyOCI      = []string{"annotations", "subject", "artifactType"}
	onlyOCIEntry = []string{"annotations", "artifactType", "data"}
)

// Convert gives the index OCI's or Docker's media type. The manifests it names stay as they are. What Docker's form
// cannot hold is an error that names it.
func (x *Editor) Convert(docker bool) error {
	if (x.MediaType() == MediaTypeDockerList) == docker {
		return nil
	}
	if !docker {
		x.setMediaType(ocispec.MediaTypeImageIndex)
		return nil
	}
	for _, key := range onlyOCI {
		if x.tree.Has(key) {
			return fmt.Errorf("%w: a Docker manifest list cannot hold its %s: use the OCI form, or remove them", ErrInvalid, key)
		}
	}
	var others []Entry
	for _, e := range x.entries {
		for _, key := range onlyOCIEntry {
			if e.node.Has(key) {
				return fmt.Errorf("%w: a Docker manifest list cannot hold the %s of %s: use the OCI form, or remove them", ErrInvalid, key, e.name())
			}
		}
		if e.MediaType != MediaTypeDockerManifest {
			others = append(others, e)
		}
	}
	if len(others) > 0 {
		x.note("the Docker manifest list names manifests of OCI's type, which stay as they are: %s", names(others))
	}
	x.setMediaType(MediaTypeDockerList)
	return nil
}

func (x *Editor) setMediaType(mt string) {
	x.tree.Set("mediaType", jsontree.NewString(mt))
}

// useOCI switches a Docker manifest list to an OCI index because of something only that can hold.
func (x *Editor) useOCI(because string) {
	if x.MediaType() == MediaTypeDockerList {
		x.setMediaType(ocispec.MediaTypeImageIndex)
		x.note("the Docker manifest list became an OCI index: only that can hold %s", because)
	}
}

// suit switches to OCI's form if an entry needs it.
func (x *Editor) suit(e Entry) {
	if x.MediaType() != MediaTypeDockerList {
		return
	}
	for _, key := range onlyOCIEntry {
		if e.node.Has(key) {
			x.useOCI("the " + key + " of " + e.name())
			return
		}
	}
	if e.MediaType == ocispec.MediaTypeImageManifest || e.MediaType == ocispec.MediaTypeImageIndex {
		x.useOCI("a manifest of OCI's type, which " + e.name() + " has")
	}
}

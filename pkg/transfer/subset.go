package transfer

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// wanted reports whether an entry of an index is among platforms, or belongs to one that is: the attestation of an
// image goes where the image goes. Entries without a platform are wanted: who knows what they are for.
func wanted(platforms []platform.Platform, idx *index.Index, e ocispec.Descriptor) bool {
	if index.IsAttestation(e) {
		of := index.Attests(e)
		for _, o := range idx.Manifests {
			if o.Digest == of && !index.IsAttestation(o) {
				return wanted(platforms, idx, o)
			}
		}
		return of == ""
	}
	if e.Platform == nil || e.Platform.OS == "" && e.Platform.Architecture == "" {
		return true
	}
	p, err := platform.FromOCI(*e.Platform)
	if err != nil {
		return false
	}
	return matchesAny(platforms, p)
}

// matchesAny reports whether p is one of platforms. A wanted platform without an OS version is of any.
func matchesAny(platforms []platform.Platform, p platform.Platform) bool {
	for _, want := range platforms {
		q := p
		if want.OSVersion == "" {
			q.OSVersion = ""
		}
		if q == want {
			return true
		}
	}
	return false
}

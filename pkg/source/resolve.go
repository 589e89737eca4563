package source

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Resolved is one platform's image, read and cross-checked.
type Resolved struct {
	Platform platform.Platform
	Desc     ocispec.Descriptor // of the manifest, with Platform set
	Manifest ocispec.Manifest
	Raw      []byte // of the manifest
	Config   []byte
	DiffIDs  []digest.Digest
}

// Resolve picks the image for want out of img (an index, nested ones too, or a
// single image, whose config must then be of that platform) and reads manifest
// and config. ErrNotFound lists the platforms there are. An older variant of the
// wanted one will do, another architecture never (an arm64 client could run arm,
// but what is built on it would not be arm64). The zero platform means the only image there is.
func Resolve(ctx context.Context, img Image, want platform.Platform) (*Resolved, error) {
	r, err := resolve(ctx, img, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", img.Ref(), err)
	}
	return r, nil
}

func resolve(ctx context.Context, img Image, want platform.Platform) (*Resolved, error) {
	root := img.Root()
	if !index.IsIndex(root.MediaType) {
		r, err := read(ctx, img, root)
		if err != nil {
			return nil, err
		}
		if !runs(r.Platform, want) {
			return nil, fmt.Errorf("%w: it is a single image for %s, not for %s", ErrNotFound, r.Platform, want)
		}
		return r, nil
	}
	entries, err := List(ctx, img)
	if err != nil {
		return nil, err
	}
	var have []platform.Platform
	var descs []ocispec.Descriptor
	for _, e := range entries {
		// Of two entries for one platform the first counts (image-spec, image-index.md).
		if e.Kind == EntryImage && e.Err == nil && !slices.Contains(have, e.Platform) {
			have, descs = append(have, e.Platform), append(descs, e.Desc)
		}
	}
	if want.IsZero() && len(have) != 1 {
		return nil, fmt.Errorf("%w: it holds images for %s: name the platform (--platform OS/ARCH)", ErrAmbiguous, listPlatforms(entries))
	}
	i := 0
	if !want.IsZero() {
		var ok bool
		if i, ok = platform.SelectArch(want, have); !ok {
			return nil, fmt.Errorf("%w: no image for %s; there are %s", ErrNotFound, want, listPlatforms(entries))
		}
	}
	r, err := read(ctx, img, descs[i])
	if err != nil {
		return nil, fmt.Errorf("the image for %s: %w", have[i], err)
	}
	if !runs(r.Platform, want) {
		return nil, fmt.Errorf("%w: the index says that %s is for %s, but its config says %s", ErrInvalid, descs[i].Digest, have[i], r.Platform)
	}
	return r, nil
}

// runs reports whether a client that wants want takes an image for p.
func runs(p, want platform.Platform) bool {
	if want.IsZero() {
		return true
	}
	_, ok := platform.SelectArch(want, []platform.Platform{p})
	return ok
}

func listPlatforms(entries []Entry) string {
	var names []string
	for _, e := range entries {
		switch {
		case e.Kind != EntryImage:
		case e.Err == nil:
			names = append(names, e.Platform.String())
		default:
			names = append(names, fmt.Sprintf("%s of unknown platform (%v)", e.Desc.Digest, e.Err))
		}
	}
	return listed(names)
}

// read reads one image and checks manifest, config and descriptor against each other.
func read(ctx context.Context, img Image, desc ocispec.Descriptor) (*Resolved, error) {
	m, raw, err := ReadManifest(ctx, img, desc)
	if err != nil {
		return nil, err
	}
	c, err := ReadConfig(ctx, img, m)
	if err != nil {
		return nil, err
	}
	p, err := Agree(desc, c)
	if err != nil {
		return nil, err
	}
	oci := p.OCI()
	if desc.Platform == nil {
		desc.Platform = &oci
	}
	return &Resolved{Platform: p, Desc: desc, Manifest: m, Raw: raw, Config: c.Raw, DiffIDs: c.DiffIDs}, nil
}

// Agree returns the platform of an image from its descriptor and its config together, and ErrInvalid where they
// contradict each other. A variant or OS version that one of them leaves out is the other's.
func Agree(desc ocispec.Descriptor, c Config) (platform.Platform, error) {
	if desc.Platform == nil {
		return c.Platform, nil
	}
	d, err := platform.FromOCI(*desc.Platform)
	if err != nil {
		return d, invalidPlatform("the descriptor of "+desc.Digest.String(), err)
	}
	p := d
	if desc.Platform.Variant == "" {
		p.Variant = c.Platform.Variant
	}
	if desc.Platform.OSVersion == "" {
		p.OSVersion = c.Platform.OSVersion
	}
	variants := c.Image.Variant == "" || p.Variant == c.Platform.Variant
	versions := c.Image.OSVersion == "" || p.OSVersion == c.Platform.OSVersion
	if d.OS != c.Platform.OS || d.Arch != c.Platform.Arch || !variants || !versions {
		return d, fmt.Errorf("%w: the index says that %s is for %s, but its config says %s", ErrInvalid, desc.Digest, d, c.Platform)
	}
	return p, nil
}

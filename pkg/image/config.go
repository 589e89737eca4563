package image

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// makeConfig lays everything that in says over its base's config.
func makeConfig(in Input) ([]byte, error) {
	tree := jsontree.NewObject()
	if in.Base == nil {
		// The order that image-spec's types are written in.
		tree.Set("created", jsontree.NewString(timestamp(in.Created)))
	} else {
		var known ocispec.Image
		base, err := jsontree.Decode(in.Base, &known)
		if err != nil {
			return nil, fmt.Errorf("%w: the base's config: %w", ErrInvalid, err)
		}
		if base.Kind() != jsontree.Object {
			return nil, fmt.Errorf("%w: the base's config is %s and no object", ErrInvalid, base.Kind())
		}
		tree = base
		tree.Set("created", jsontree.NewString(timestamp(in.Created)))
	}
	if in.Patch.Author != nil {
		setText(tree, "author", *in.Patch.Author)
	}
	setPlatform(tree, in.Platform)

	config, err := objectAt(tree, "config")
	if err != nil {
		return nil, err
	}
	if err := patchConfig(config, in.Patch, in.Platform.OS); err != nil {
		return nil, err
	}

	rootfs, err := objectAt(tree, "rootfs")
	if err != nil {
		return nil, err
	}
	rootfs.Set("type", jsontree.NewString("layers"))
	ids := jsontree.NewArray()
	for _, l := range in.Layers {
		ids.Append(jsontree.NewString(l.DiffID.String()))
	}
	rootfs.Set("diff_ids", ids)

	if err := setHistory(tree, in.Layers, in.Created); err != nil {
		return nil, err
	}
	return tree.Bytes(), nil
}

// setPlatform writes p where the config says something else, so that a variant keeps the spelling its base gave it.
func setPlatform(tree *jsontree.Node, p platform.Platform) {
	text := func(key string) string { s, _ := tree.Get(key).Text(); return s }
	has := platform.Normalise(platform.Platform{OS: text("os"), Arch: text("architecture"), Variant: text("variant")})
	same := has.OS == p.OS && has.Arch == p.Arch && has.Variant == p.Variant
	tree.Set("architecture", jsontree.NewString(p.Arch))
	if !same {
		setText(tree, "variant", p.Variant)
	}
	tree.Set("os", jsontree.NewString(p.OS))
	want := p.OCI()
	if want.OSVersion != "" {
		tree.Set("os.version", jsontree.NewString(want.OSVersion))
	}
	if len(want.OSFeatures) > 0 {
		tree.Set("os.features", jsontree.NewStrings(want.OSFeatures))
	}
}

// setText sets a member, or takes it away when s is empty.
func setText(n *jsontree.Node, key, s string) {
	if s == "" {
		n.Delete(key)
		return
	}
	n.Set(key, jsontree.NewString(s))
}

// objectAt returns the object that is n's member key, making it when it is missing or null.
func objectAt(n *jsontree.Node, key string) (*jsontree.Node, error) {
	v := n.Get(key)
	switch v.Kind() {
	case jsontree.Object:
	case jsontree.Null:
		v = jsontree.NewObject()
		n.Set(key, v)
	default:
		return nil, fmt.Errorf("%w: the base's config: %s is %s and no object", ErrInvalid, key, v.Kind())
	}
	return v, nil
}

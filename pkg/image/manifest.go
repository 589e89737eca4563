package image

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
)

// ManifestEditor changes the manifest of an image or artifact. What is not changed keeps its order and its fields, known here or
// not; a manifest that nothing changed in keeps its very bytes.
type ManifestEditor struct {
	raw   []byte
	read  string // the same, compact
	tree  *jsontree.Node
	notes []string
}

// ManifestLayer is a layer as a manifest describes it, with everything that says.
type ManifestLayer struct {
	ocispec.Descriptor
	node *jsontree.Node
}

// EditManifest starts to edit a manifest.
func EditManifest(raw []byte) (*ManifestEditor, error) {
	if _, err := index.ParseManifest(raw); err != nil {
		return nil, err
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", index.ErrInvalidManifest, err)
	}
	return &ManifestEditor{raw: raw, read: string(tree.Bytes()), tree: tree}, nil
}

// Docker reports whether the manifest is of Docker's type.
func (x *ManifestEditor) Docker() bool {
	mt, _ := x.tree.Get("mediaType").Text()
	return mt == index.MediaTypeDockerManifest
}

// Notes are what an edit did beyond what was asked for, one line each.
func (x *ManifestEditor) Notes() []string { return slices.Clone(x.notes) }

// Layers returns the layers, lowest first.
func (x *ManifestEditor) Layers() ([]ManifestLayer, error) {
	items := x.tree.Get("layers").Items()
	out := make([]ManifestLayer, len(items))
	for i, n := range items {
		out[i].node = n
		if err := n.Decode(&out[i].Descriptor); err != nil {
			return nil, fmt.Errorf("%w: layers[%d]: %w", index.ErrInvalidManifest, i, err)
		}
	}
	return out, nil
}

// NewLayer makes a layer of a descriptor.
func NewLayer(desc ocispec.Descriptor) (ManifestLayer, error) {
	node, err := nodeOf(desc)
	return ManifestLayer{desc, node}, err
}

// nodeOf writes a descriptor as image-spec does.
func nodeOf(desc ocispec.Descriptor) (*jsontree.Node, error) {
	raw, err := jsontree.Marshal(desc)
	if err != nil {
		return nil, err
	}
	return jsontree.Parse(raw)
}

// SetLayers says which layers there are. Their media types become those of the manifest's family.
func (x *ManifestEditor) SetLayers(layers []ManifestLayer) error {
	list := jsontree.NewArray()
	for i, l := range layers {
		mt, err := LayerMediaType(l.MediaType, x.Docker())
		if err != nil {
			return fmt.Errorf("layer %d, %s: %w", i+1, l.Digest, err)
		}
		node, err := jsontree.Parse(l.node.Bytes()) // it may be another document's
		if err != nil {
			return fmt.Errorf("%w: %w", index.ErrInvalidManifest, err)
		}
		if mt != l.MediaType {
			node.Set("mediaType", jsontree.NewString(mt))
		}
		list.Append(node)
	}
	x.tree.Set("layers", list)
	return nil
}

// SetConfig says which bytes the config has.
func (x *ManifestEditor) SetConfig(raw []byte) (ocispec.Descriptor, error) {
	config, err := objectAt(x.tree, "config")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	desc.MediaType, _ = config.Get("mediaType").Text()
	now, _ := config.Get("digest").Text()
	if now != desc.Digest.String() {
		node, err := nodeOf(desc)
		if err != nil {
			return desc, err
		}
		config.Set("digest", node.Get("digest"))
		config.Set("size", node.Get("size"))
		config.Delete("data") // that of the old one
	}
	return desc, nil
}

// Annotate changes annotations. Docker's manifests have none: such a one becomes OCI's, with a note.
func (x *ManifestEditor) Annotate(set map[string]string, remove ...string) error {
	if x.Docker() {
		if len(set) == 0 {
			return nil
		}
		if err := x.Convert(false); err != nil {
			return err
		}
		x.notes = append(x.notes, "became a manifest of OCI's type: Docker's has no annotations")
	}
	_, raw, err := index.AnnotateManifest(ocispec.Descriptor{}, x.tree.Bytes(), set, remove...)
	if err != nil {
		return err
	}
	x.tree, err = jsontree.Parse(raw)
	return err
}

// Convert gives manifest, config and layers the media types of OCI or of Docker. What Docker's cannot hold is an error.
func (x *ManifestEditor) Convert(docker bool) error {
	if x.Docker() == docker {
		return nil
	}
	mt, config := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	if docker {
		mt, config = index.MediaTypeDockerManifest, index.MediaTypeDockerConfig
		for _, key := range []string{"annotations", "subject", "artifactType"} {
			if x.tree.Has(key) {
				return fmt.Errorf("%w: Docker's manifest cannot hold its %s: remove it, or keep OCI's form", ErrInvalid, key)
			}
		}
	}
	if have, _ := x.tree.Get("config").Get("mediaType").Text(); !index.IsConfig(have) {
		return fmt.Errorf("%w: it is an artifact, whose form is OCI's", ErrInvalid)
	}
	layers, err := x.Layers()
	if err != nil {
		return err
	}
	before, beforeConfig := x.tree.Get("mediaType"), x.tree.Get("config").Get("mediaType")
	x.tree.Set("mediaType", jsontree.NewString(mt))
	x.tree.Get("config").Set("mediaType", jsontree.NewString(config))
	if err := x.SetLayers(layers); err != nil {
		if before == nil {
			x.tree.Delete("mediaType")
		} else {
			x.tree.Set("mediaType", before)
		}
		x.tree.Get("config").Set("mediaType", beforeConfig)
		return err
	}
	return nil
}

// SetSubject says what the manifest is about. Fields of the old subject that are not of its content stay.
func (x *ManifestEditor) SetSubject(desc ocispec.Descriptor) error {
	subject, err := objectAt(x.tree, "subject")
	if err != nil {
		return err
	}
	node, err := nodeOf(ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return err
	}
	for _, key := range []string{"mediaType", "digest", "size"} {
		subject.Set(key, node.Get(key))
	}
	subject.Delete("data")
	return nil
}

// Finish returns the manifest with all edits. Without any they are the bytes that were read.
func (x *ManifestEditor) Finish() (ocispec.Descriptor, []byte, error) {
	raw := x.tree.Bytes()
	if string(raw) == x.read {
		raw = x.raw
	}
	m, err := index.ParseManifest(raw)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), ArtifactType: m.ArtifactType}, raw, nil
}

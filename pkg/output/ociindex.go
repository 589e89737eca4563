package output

import (
	"fmt"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// annotationContainerdName is where BuildKit and containerd write the whole name of an entry of
// index.json, beside the tag in org.opencontainers.image.ref.name.
const annotationContainerdName = "io.containerd.image.name"

// maxLayoutIndex bounds the index.json that is read.
const maxLayoutIndex = 16 << 20

// addToIndex puts desc under names into an index.json (nil: a new one) and returns its bytes. Every other entry
// and unknown fields stay, in their order. An entry of the same name is replaced in its place. A tag belongs to
// the name written last: an older entry of another repository with the same tag keeps its full name only. An
// empty desc changes nothing: it only checks.
func addToIndex(old []byte, desc ocispec.Descriptor, names []ref.Ref) ([]byte, error) {
	tree, err := parseIndex(old)
	if err != nil {
		return nil, err
	}
	entries := tree.Get("manifests").Items()
	if desc.Digest == "" {
		return old, nil
	}
	tags := map[string]bool{}
	named := false
	for _, name := range names {
		if name.Kind != ref.Registry {
			continue
		}
		named = true
		tag := name.Tag
		if tag == "" || tags[tag] { // a second name with this tag
			tag = name.String()
		}
		tags[tag] = true
		entry, err := newEntry(desc, name.String(), tag)
		if err != nil {
			return nil, err
		}
		entries = putEntry(entries, entry, name.String(), tag)
	}
	if !named {
		entries, err = putUnnamed(entries, desc)
		if err != nil {
			return nil, err
		}
	}
	tree.Set("manifests", jsontree.NewArray(entries...))
	out := tree.Bytes()
	if len(out) > maxLayoutIndex {
		return nil, fmt.Errorf("it would have %d bytes, more than the limit of %d", len(out), maxLayoutIndex)
	}
	return out, nil
}

func parseIndex(old []byte) (*jsontree.Node, error) {
	if old == nil {
		empty, err := jsontree.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
		})
		if err != nil {
			return nil, err
		}
		old = empty
	}
	var idx ocispec.Index
	tree, err := jsontree.Decode(old, &idx)
	if err != nil {
		return nil, err
	}
	if idx.SchemaVersion != 2 {
		return nil, fmt.Errorf("its schemaVersion is %d and not 2", idx.SchemaVersion)
	}
	if k := tree.Get("manifests").Kind(); k != jsontree.Array && k != jsontree.Null {
		return nil, fmt.Errorf("manifests is %s", k)
	}
	return tree, nil
}

func newEntry(desc ocispec.Descriptor, name, tag string) (*jsontree.Node, error) {
	annotations := map[string]string{}
	for k, v := range desc.Annotations {
		annotations[k] = v
	}
	if name != "" {
		annotations[annotationContainerdName], annotations[ocispec.AnnotationRefName] = name, tag
	}
	desc.Annotations = annotations
	raw, err := jsontree.Marshal(desc)
	if err != nil {
		return nil, err
	}
	return jsontree.Parse(raw)
}

// putEntry replaces the entry of that name, or appends, and takes tag from any other.
func putEntry(entries []*jsontree.Node, entry *jsontree.Node, name, tag string) []*jsontree.Node {
	out := make([]*jsontree.Node, 0, len(entries)+1)
	placed := false
	for _, e := range entries {
		annotations := e.Get("annotations")
		full, _ := annotations.Get(annotationContainerdName).Text()
		short, _ := annotations.Get(ocispec.AnnotationRefName).Text()
		switch {
		case full == name, full == "" && (short == tag || short == name):
			if !placed {
				out, placed = append(out, entry), true
			}
			continue
		case short == tag && full != "":
			annotations.Set(ocispec.AnnotationRefName, jsontree.NewString(full))
		}
		out = append(out, e)
	}
	if !placed {
		out = append(out, entry)
	}
	return out
}

// putUnnamed adds an entry without a name, unless the image is there already.
func putUnnamed(entries []*jsontree.Node, desc ocispec.Descriptor) ([]*jsontree.Node, error) {
	for _, e := range entries {
		if d, _ := e.Get("digest").Text(); d == desc.Digest.String() {
			return entries, nil
		}
	}
	entry, err := newEntry(desc, "", "")
	if err != nil {
		return nil, err
	}
	return append(entries, entry), nil
}

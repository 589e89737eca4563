package index

import (
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// Limits of one document (ROBUSTNESS.md b07, b09).
const (
	MaxSize        = 4 << 20 // bytes: what registries must take (distribution-spec, "Pushing Manifests")
	MaxDescriptors = 10_000
)

var (
	// ErrInvalidManifest is the kind of every error for bytes that are no image manifest.
	ErrInvalidManifest = errors.New("invalid manifest")
	// ErrSchema1 says that a document is of Docker's schema 1, which holds no digests of its parts to verify.
	ErrSchema1 = errors.New("docker schema 1 manifests are not supported: push the image again with a current tool")
)

// document is what kind of manifest bytes are.
type document string

const (
	documentIndex    document = "an index"
	documentManifest document = "an image manifest, not an index"
)

// Sniff tells from a document's bytes which media type it has: its own mediaType field, else OCI's for its shape.
func Sniff(raw []byte) (mediaType string, err error) {
	kind, tree, err := sniff(raw)
	if err != nil {
		return "", err
	}
	if mt, _ := tree.Get("mediaType").Text(); mt != "" {
		return mt, nil
	}
	if kind == documentIndex {
		return ocispec.MediaTypeImageIndex, nil
	}
	return ocispec.MediaTypeImageManifest, nil
}

// sniff checks what holds for all documents: size, JSON, one shape only, and a mediaType that agrees with it.
func sniff(raw []byte) (document, *jsontree.Node, error) {
	if len(raw) > MaxSize {
		return "", nil, fmt.Errorf("its %d bytes are more than the limit of %d", len(raw), MaxSize)
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return "", nil, err
	}
	if tree.Kind() != jsontree.Object {
		return "", nil, fmt.Errorf("it is %s and no object", tree.Kind())
	}
	if v := tree.Get("schemaVersion"); v != nil {
		switch string(v.Bytes()) {
		case "2":
		case "1":
			return "", nil, ErrSchema1
		default:
			return "", nil, fmt.Errorf("its schemaVersion is %.40s and not 2", v.Bytes())
		}
	} else {
		return "", nil, errors.New("it has no schemaVersion: no manifest or index")
	}
	mediaType, ok := tree.Get("mediaType").Text()
	if tree.Has("mediaType") && !ok {
		return "", nil, fmt.Errorf("its mediaType is %s", tree.Get("mediaType").Kind())
	}
	isIndex := tree.Has("manifests")
	isManifest := tree.Has("config") || tree.Has("layers") || tree.Has("fsLayers")
	kind := documentManifest
	list := "layers"
	switch {
	case isIndex && isManifest:
		return "", nil, errors.New("ambiguous document: it has manifests as well as layers or config")
	case isIndex:
		kind, list = documentIndex, "manifests"
	case !isManifest:
		return "", nil, errors.New("it has neither manifests nor layers")
	}
	switch {
	case IsIndex(mediaType) && kind != documentIndex, IsManifest(mediaType) && kind != documentManifest:
		return "", nil, fmt.Errorf("ambiguous document: its mediaType is %q, but it holds %s", mediaType, list)
	case mediaType != "" && !IsIndex(mediaType) && !IsManifest(mediaType):
		return "", nil, fmt.Errorf("its mediaType is %q: neither an index nor an image manifest", mediaType)
	}
	if items := tree.Get(list); items.Kind() != jsontree.Array {
		return "", nil, fmt.Errorf("%s is missing or no array", list)
	} else if n := len(items.Items()); n > MaxDescriptors {
		return "", nil, fmt.Errorf("%s has %d entries, more than the limit of %d", list, n, MaxDescriptors)
	}
	return kind, tree, nil
}

// ParseManifest reads an image manifest, OCI's or Docker's, and checks it as [Parse] checks an index. MediaType is
// never empty in the result.
func ParseManifest(raw []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	kind, tree, err := sniff(raw)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	if kind != documentManifest {
		return m, fmt.Errorf("%w: it is %s", ErrInvalidManifest, kind)
	}
	if err := tree.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrInvalidManifest, err)
	}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	if err := CheckDescriptor(m.Config); err != nil {
		return m, fmt.Errorf("%w: config: %w", ErrInvalidManifest, err)
	}
	if IsLayer(m.Config.MediaType) || IsManifest(m.Config.MediaType) || IsIndex(m.Config.MediaType) {
		return m, fmt.Errorf("%w: config: %s is no config but %q", ErrInvalidManifest, m.Config.Digest, m.Config.MediaType)
	}
	for i, l := range m.Layers {
		if err := CheckDescriptor(l); err != nil {
			return m, fmt.Errorf("%w: layers[%d]: %w", ErrInvalidManifest, i, err)
		}
		if IsConfig(l.MediaType) || IsManifest(l.MediaType) || IsIndex(l.MediaType) {
			return m, fmt.Errorf("%w: layers[%d]: %s is no layer but %q", ErrInvalidManifest, i, l.Digest, l.MediaType)
		}
	}
	if m.Subject != nil {
		if err := CheckDescriptor(*m.Subject); err != nil {
			return m, fmt.Errorf("%w: subject: %w", ErrInvalidManifest, err)
		}
	}
	return m, nil
}

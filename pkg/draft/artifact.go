package draft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// What an artifact is whose maker does not say (image-spec, manifest.md, "Guidelines for Artifact Usage").
const (
	unknownArtifact  = "application/vnd.unknown.artifact.v1"
	unknownLayerType = "application/octet-stream"
)

// Artifact says what files are that become an artifact.
type Artifact struct {
	Type        string              // "" is unknown
	ConfigFile  string              // "" is the empty object
	ConfigType  string              // "" is the empty object's, or JSON
	LayerType   string              // of every file; "" is any bytes
	Subject     *ocispec.Descriptor // what it is about
	Annotations map[string]string   // of its manifest
	NoTitles    bool                // the names of the files are left out
}

// TakeFiles makes an artifact of files, in the store, and returns the entry that stands for it.
func (d *Drafts) TakeFiles(ctx context.Context, files []string, a Artifact) (Source, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: a.Type, Annotations: a.Annotations, Layers: []ocispec.Descriptor{},
	}
	if m.ArtifactType == "" {
		m.ArtifactType = unknownArtifact
	}
	if s := a.Subject; s != nil {
		m.Subject = &ocispec.Descriptor{MediaType: s.MediaType, Digest: s.Digest, Size: s.Size}
	}
	var err error
	if m.Config, err = d.artifactConfig(ctx, a); err != nil {
		return Source{}, err
	}
	layerType := a.LayerType
	if layerType == "" {
		layerType = unknownLayerType
	}
	for _, name := range files {
		desc, err := d.putFile(ctx, name, layerType)
		if err != nil {
			return Source{}, err
		}
		if !a.NoTitles {
			desc.Annotations = map[string]string{ocispec.AnnotationTitle: filepath.Base(name)}
		}
		m.Layers = append(m.Layers, desc)
	}
	raw, err := jsontree.Marshal(m)
	if err != nil {
		return Source{}, err
	}
	if _, err := index.ParseManifest(raw); err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	desc, err := d.Store.PutBytes(ctx, m.MediaType, raw)
	if err != nil {
		return Source{}, err
	}
	e, err := index.NewEntry(ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, ArtifactType: m.ArtifactType})
	return Source{Ref: ref.Ref{Kind: ref.Store, Digest: desc.Digest}, Root: desc, Entries: []index.Entry{e}}, err
}

// artifactConfig puts the config of an artifact into the store.
func (d *Drafts) artifactConfig(ctx context.Context, a Artifact) (ocispec.Descriptor, error) {
	if a.ConfigFile != "" {
		kind := a.ConfigType
		if kind == "" {
			kind = "application/json"
		}
		return d.putFile(ctx, a.ConfigFile, kind)
	}
	empty := ocispec.DescriptorEmptyJSON
	if a.ConfigType != "" {
		empty = ocispec.Descriptor{MediaType: a.ConfigType, Digest: empty.Digest, Size: empty.Size}
	}
	_, err := d.Store.PutBytes(ctx, empty.MediaType, []byte("{}"))
	return empty, err
}

func (d *Drafts) putFile(ctx context.Context, name, mediaType string) (_ ocispec.Descriptor, err error) {
	f, err := os.Open(name)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ocispec.Descriptor{}, errors.Join(fmt.Errorf("%w: %s is no regular file", ErrInvalid, name), err)
	}
	return d.Store.Put(ctx, mediaType, f)
}

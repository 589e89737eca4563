package draft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// maxDockerFile is the most bytes of a file in docker's directory: a manifest three times, once in base64.
const maxDockerFile = 4 * index.MaxSize

// dockerEntry is what `docker manifest create` keeps of one image, in a file of its own.
type dockerEntry struct {
	Ref        string
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// FromDocker reads the draft that `docker manifest create` made of list, from the directory of docker's configuration:
// images with the platforms that `docker manifest annotate` gave them.
func (d *Drafts) FromDocker(ctx context.Context, config string, list ref.Ref) ([]Source, error) {
	if list.Kind != ref.Registry || list.Tag == "" {
		return nil, fmt.Errorf("%w name %q: docker's drafts have names in registries", ErrInvalid, list)
	}
	dir := filepath.Join(config, "manifests", dockerFileName(list.String()))
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: docker has no draft of %s: there is no %s", source.ErrNotFound, list, dir)
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, err := fs.ReadDir(root.FS(), ".") // by name, as docker pushes them
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	var out []Source
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		s, err := d.dockerSource(ctx, root, f.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, f.Name()), err)
		}
		out = append(out, s)
	}
	return out, nil
}

// dockerFileName is how docker names a file after a reference.
func dockerFileName(name string) string {
	return strings.NewReplacer(":", "-", "/", "_").Replace(name)
}

func (d *Drafts) dockerSource(ctx context.Context, root *os.Root, name string) (Source, error) {
	f, err := root.Open(name)
	if err != nil {
		return Source{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxDockerFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return Source{}, err
	}
	return d.parseDocker(ctx, data)
}

// parseDocker reads one image of docker's. With its manifest no registry is asked; without, it is fetched.
func (d *Drafts) parseDocker(ctx context.Context, data []byte) (Source, error) {
	var e dockerEntry
	if len(data) > maxDockerFile {
		return Source{}, fmt.Errorf("%w: more than %d bytes", ErrInvalid, maxDockerFile)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Source{}, fmt.Errorf("%w: it is not docker's: %w", ErrInvalid, err)
	}
	r, err := ref.Parse(e.Ref)
	if err != nil {
		return Source{}, err
	}
	if err := index.CheckDescriptor(e.Descriptor); err != nil {
		return Source{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.Kind != ref.Registry || e.Descriptor.Platform == nil || !index.IsManifest(e.Descriptor.MediaType) {
		return Source{}, fmt.Errorf("%w: it is no image of a registry with a platform", ErrInvalid)
	}
	patch := index.PatchOf(*e.Descriptor.Platform)
	r.Digest = e.Descriptor.Digest
	if !e.Descriptor.Digest.Algorithm().Available() || e.Descriptor.Digest.Algorithm().FromBytes(e.Raw) != e.Descriptor.Digest {
		return d.take(ctx, r, TakeOptions{Platform: patch})
	}
	desc := ocispec.Descriptor{MediaType: e.Descriptor.MediaType, Digest: e.Descriptor.Digest, Size: int64(len(e.Raw))}
	entry, err := index.NewEntry(desc)
	if err == nil {
		entry, err = entry.SetPlatform(patch)
	}
	if err != nil {
		return Source{}, err
	}
	if _, err := index.ParseManifest(e.Raw); err != nil {
		return Source{}, err
	}
	if err := d.put(ctx, desc, e.Raw); err != nil {
		return Source{}, err
	}
	if err := d.Store.AddOrigin(ctx, desc.Digest, r.String()); err != nil {
		return Source{}, err
	}
	return Source{Ref: r, Root: desc, Entries: slices.Clip([]index.Entry{entry})}, nil
}

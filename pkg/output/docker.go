package output

import (
	"context"
	"fmt"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

func openDocker(s Spec, env Env) (Destination, error) {
	if s.Dir {
		return nil, invalid("tar=false: a docker archive is a file (type=oci,tar=false writes a directory)")
	}
	f, err := openFile(s, env)
	return &dockerArchive{spec: s, env: env, file: f}, err
}

// dockerArchive is what docker save writes since version 25: an image layout, and beside it manifest.json and
// repositories, which older dockers and podman read.
type dockerArchive struct {
	spec Spec
	env  Env
	file file
}

var _ PlatformChecker = (*dockerArchive)(nil)

// CheckPlatforms implements PlatformChecker.
func (d *dockerArchive) CheckPlatforms(ps []platform.Platform) error {
	if len(ps) < 2 {
		return nil
	}
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.String()
	}
	return invalid("type=docker holds one platform, not %s: choose one with --platform, or use type=oci", strings.Join(names, ", "))
}

// Write implements Destination.
func (d *dockerArchive) Write(ctx context.Context, p Product) error {
	var platforms []platform.Platform
	for _, img := range p.Images {
		platforms = append(platforms, img.Platform)
	}
	if err := d.CheckPlatforms(platforms); err != nil {
		return err
	}
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	files, err := dockerFiles(c, p)
	if err != nil {
		return err
	}
	bar := track(d.env.Events, d.spec, c.size())
	err = d.file.write(func(w io.Writer) error {
		a := newArchive(w, p.Epoch)
		for _, f := range files {
			if err := a.file(f.name, f.data); err != nil {
				return err
			}
		}
		if err := a.blobs(ctx, c, bar); err != nil {
			return err
		}
		return a.close()
	})
	if err == nil {
		bar.done()
	}
	return err
}

type member struct {
	name string
	data []byte
}

// dockerFiles makes the small files of the archive.
func dockerFiles(c *closure, p Product) ([]member, error) {
	var images []ocispec.Manifest
	for _, doc := range c.docs {
		if !index.IsManifest(doc.desc.MediaType) || index.IsAttestation(doc.desc) {
			continue
		}
		m, err := index.ParseManifest(doc.raw)
		if err != nil {
			return nil, err
		}
		images = append(images, m)
	}
	if len(images) != 1 {
		return nil, invalid("type=docker holds one image, not %d", len(images))
	}
	item := dockerItem{Config: blobPath(images[0].Config), Layers: []string{}}
	for _, l := range images[0].Layers {
		item.Layers = append(item.Layers, blobPath(l))
	}
	repositories := map[string]map[string]string{}
	for _, name := range p.Names {
		if name.Kind != ref.Registry || name.Tag == "" {
			continue
		}
		item.RepoTags = append(item.RepoTags, name.Familiar())
		repo := strings.TrimSuffix(name.Familiar(), ":"+name.Tag)
		if repositories[repo] == nil {
			repositories[repo] = map[string]string{}
		}
		repositories[repo][name.Tag] = images[0].Config.Digest.Encoded()
	}
	idx, err := addToIndex(nil, p.Root, p.Names)
	if err != nil {
		return nil, err
	}
	manifest, err := jsontree.Marshal([]dockerItem{item})
	if err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	files := []member{
		{ocispec.ImageLayoutFile, layoutFile()},
		{ocispec.ImageIndexFile, idx},
		{"manifest.json", manifest},
	}
	if len(repositories) > 0 {
		raw, err := jsontree.Marshal(repositories)
		if err != nil {
			return nil, fmt.Errorf("repositories: %w", err)
		}
		files = append(files, member{"repositories", raw})
	}
	return files, nil
}

// dockerItem is an entry of manifest.json (docker/docker, image/tarexport).
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

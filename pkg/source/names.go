package source

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Named is one name of a layout or archive.
type Named struct {
	Name string  // the whole name ("docker.io/library/debian:12"), a tag, or "" for an image without a name
	Ref  ref.Ref // what opens the image
}

// Names lists what a layout or archive holds, in its order, an image under several names several times.
func (o *Opener) Names(ctx context.Context, r ref.Ref) (out []Named, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("listing %s: %w", r, err)
		}
	}()
	f, err := o.openFiles(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if r.Kind == ref.DockerArchive {
		if _, err := readFile(f, ocispec.ImageLayoutFile); err != nil { // one of before Docker 25
			return dockerNames(f, r)
		}
	}
	layout, err := readFile(f, ocispec.ImageLayoutFile)
	if err != nil {
		return nil, fmt.Errorf("%w: no OCI layout: %w", ErrInvalid, err)
	}
	if err := checkLayoutFile(layout); err != nil {
		return nil, err
	}
	raw, err := readFile(f, ocispec.ImageIndexFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, ocispec.ImageIndexFile, err)
	}
	for _, e := range idx.Manifests {
		name := e.Annotations[annotationContainerdName]
		if name == "" {
			name = e.Annotations[ocispec.AnnotationRefName]
		}
		out = append(out, Named{Name: name, Ref: r.WithDigest(e.Digest)})
	}
	return out, nil
}

func dockerNames(f files, r ref.Ref) (out []Named, err error) {
	raw, err := readFile(f, dockerManifestFile)
	if err != nil {
		return nil, fmt.Errorf("%w: no archive of docker save: %w", ErrInvalid, err)
	}
	entries, err := parseDockerManifest(raw)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		for _, t := range e.RepoTags {
			out = append(out, Named{Name: t, Ref: r.WithTag(t)})
		}
		if len(e.RepoTags) == 0 {
			if len(entries) > 1 {
				return nil, fmt.Errorf("%w: several images, and %.100q has no name", ErrAmbiguous, e.Config)
			}
			out = append(out, Named{Ref: r.WithTag("")})
		}
	}
	return out, nil
}

package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// reRelated matches tags that lead from a digest to what refers to it.
var reRelated = sync.OnceValue(func() *regexp.Regexp { // not at start-up: it is large
	return regexp.MustCompile(`^(sha256-[a-f0-9]{64}|sha512-[a-f0-9]{64,128})(\.[a-z0-9]+)?$`)
})

// RelatedTag takes a tag apart that is no image's name but leads to what refers to one: the referrers tag of the
// distribution specification (kind ""), and cosign's ("sig", "att", "sbom"). of is the digest with "-" for ":".
func RelatedTag(tag string) (of, kind string, ok bool) {
	m := reRelated().FindStringSubmatch(tag)
	if m == nil {
		return "", "", false
	}
	if m[2] != "" {
		kind = m[2][1:]
	}
	return m[1], kind, true
}

// Tags lists the tags of the place that r is in, in lexical order: of a repository, of a name in the store, of a layout
// or archive.
func (o *Opener) Tags(ctx context.Context, r ref.Ref) ([]string, error) {
	tags, err := o.tags(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("listing tags of %s: %w", r, err)
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

func (o *Opener) tags(ctx context.Context, r ref.Ref) (tags []string, err error) {
	switch r.Kind {
	case ref.Registry:
		if o.Registry == nil {
			return nil, fmt.Errorf("%w: no registry can be read here", errors.ErrUnsupported)
		}
		tags, err := o.Registry.Tags(ctx, r)
		return tags, registryError(err)
	case ref.Store:
		if o.Store == nil {
			return nil, fmt.Errorf("%w: no store can be read here", errors.ErrUnsupported)
		}
		refs, err := o.Store.Refs()
		for _, s := range refs {
			if n, perr := ref.Parse("store:" + s.Name); perr == nil && n.Name == r.Name && n.Digest == "" {
				tags = append(tags, n.Tag)
			}
		}
		return tags, err
	}
	f, err := o.openFiles(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	raw, err := readFile(f, ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) && r.Kind == ref.DockerArchive { // one of before Docker 25
		names, err := dockerNames(f, r)
		for _, n := range names {
			if tag := tagOf(n.Name); tag != "" {
				tags = append(tags, tag)
			}
		}
		return tags, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, ocispec.ImageIndexFile, err)
	}
	for _, e := range idx.Manifests {
		name := e.Annotations[ocispec.AnnotationRefName]
		if ref.CheckTag(name) != nil {
			name = tagOf(name)
		}
		if name != "" {
			tags = append(tags, name)
		}
	}
	return tags, nil
}

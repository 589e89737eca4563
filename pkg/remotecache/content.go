package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// ErrOther is the kind of "what is there is no cache of this program".
var ErrOther = errors.New("it is no cache of manifestctl's")

// content is what a manifest, or an entry of an index, can be to a cache.
type content int

const (
	nothing   content = iota // of a type that says nothing: an artifact
	ours                     // records, in a cache or in an image
	anImage                  // without records
	buildKits                // BuildKit's cache
)

// mediaTypeBuildKit is what BuildKit's caches have as their config, or as an entry of their index (docs/dev/remote-cache.md there).
const mediaTypeBuildKit = "application/vnd.buildkit.cacheconfig.v0"

// contentOf tells by the type of a manifest's config.
func contentOf(mediaType string) content {
	switch {
	case mediaType == MediaTypeConfig:
		return ours
	case mediaType == mediaTypeBuildKit:
		return buildKits
	case index.IsConfig(mediaType):
		return anImage
	}
	return nothing
}

// other says what is there instead of records.
func other(kinds []content) error {
	switch {
	case slices.Contains(kinds, buildKits):
		return fmt.Errorf("%w but BuildKit's, of buildx or buildctl, whose keys are made otherwise; --cache-to writes one to another tag", ErrOther)
	case slices.Contains(kinds, anImage):
		return fmt.Errorf("%w but an image without records; --cache-to type=inline puts them in", ErrOther)
	case len(kinds) == 0:
		return nil
	}
	return fmt.Errorf("%w but an artifact", ErrOther)
}

// Check reads what the place of s, of a --cache-to, has: an export must not take an image's tag, nor mix with another program's cache.
// What is not there yet, or cannot be read, is left to the export.
func Check(ctx context.Context, opener *source.Opener, s Spec) error {
	if s.Type == TypeInline {
		return nil
	}
	img, err := opener.Open(ctx, s.Ref)
	if err != nil {
		return context.Cause(ctx)
	}
	defer func() { _ = img.Close() }() // it was only read
	manifests := []ocispec.Descriptor{img.Root()}
	if index.IsIndex(img.Root().MediaType) {
		idx, err := source.ReadIndex(ctx, img, img.Root())
		if err != nil {
			return context.Cause(ctx)
		}
		manifests = idx.Manifests
	}
	for _, desc := range manifests {
		kind := contentOf(desc.MediaType)
		if index.IsManifest(desc.MediaType) {
			raw, err := img.Manifest(ctx, desc)
			if err != nil {
				return context.Cause(ctx)
			}
			var m ocispec.Manifest
			if json.Unmarshal(raw, &m) != nil {
				continue
			}
			kind = contentOf(m.Config.MediaType)
		}
		what := map[content]string{anImage: "an image", buildKits: "BuildKit's cache", nothing: "an artifact"}[kind]
		if what == "" {
			continue
		}
		err := fmt.Errorf("%s: %w: %s is there", s, ErrOther, what)
		if s.Ref.Kind == ref.Registry {
			return fmt.Errorf("%w; give the cache a tag of its own, such as %s", err, suggestion(s.Ref))
		}
		return fmt.Errorf("%w; give the cache a directory of its own", err)
	}
	return nil
}

// suggestion is a tag in the same repository that says what it is.
func suggestion(r ref.Ref) string {
	if r.Tag == "cache" {
		r.Tag = "manifestctl-cache"
	} else {
		r.Tag = "cache"
	}
	return r.String()
}

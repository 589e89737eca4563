package transfer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/internal/yamlfile"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// mergeFile is the YAML of manifest-tool's push from-spec.
type mergeFile struct {
	Image     string      `yaml:"image"`
	Tags      []string    `yaml:"tags"`
	Manifests []mergeItem `yaml:"manifests"`
}

type mergeItem struct {
	Image    string `yaml:"image"`
	Platform struct {
		Architecture string   `yaml:"architecture"`
		OS           string   `yaml:"os"`
		OSVersion    string   `yaml:"os.version"`
		OSFeatures   []string `yaml:"os.features"`
		Variant      string   `yaml:"variant"`
		Features     []string `yaml:"features"`
	} `yaml:"platform"`
}

// ParseSource reads a source of a merge: a reference, or a digest alone, which is in the repository of dest.
func ParseSource(s string, dest ref.Ref) (ref.Ref, error) {
	if d := digest.Digest(strings.TrimPrefix(s, "@")); d.Validate() == nil {
		return dest.WithDigest(d), nil
	}
	return ref.Parse(s)
}

// maxMergeFile is how many bytes such a file may have.
const maxMergeFile = 1 << 20

// ParseMergeFile reads manifest-tool's YAML: the names it wants to push to, and the sources. Every error is of kind ErrInvalid
// or ref.ErrInvalid.
func ParseMergeFile(raw []byte) (names []ref.Ref, sources []MergeSource, err error) {
	fail := func(format string, a ...any) ([]ref.Ref, []MergeSource, error) {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, a...))
	}
	if len(raw) > maxMergeFile {
		return fail("its %d bytes are more than the limit of %d", len(raw), maxMergeFile)
	}
	var f mergeFile
	if err := yamlfile.Decode(raw, &f, yamlfile.Options{Strict: true, Quote: true}); err != nil {
		if errors.Is(err, io.EOF) {
			return fail("it is empty")
		}
		return fail("%w", err)
	}
	if f.Image != "" {
		r, err := ref.Parse(f.Image)
		if err != nil {
			return nil, nil, fmt.Errorf("image: %w", err)
		}
		names = append(names, r)
		for _, t := range f.Tags {
			if err := ref.CheckTag(t); err != nil {
				return nil, nil, fmt.Errorf("tags: %w", err)
			}
			names = append(names, r.WithTag(t))
		}
	} else if len(f.Tags) > 0 {
		return fail("tags without an image")
	}
	for i, item := range f.Manifests {
		if item.Image == "" {
			return fail("manifests[%d] has no image", i)
		}
		r, err := ref.Parse(item.Image)
		if err != nil {
			return nil, nil, fmt.Errorf("manifests[%d]: %w", i, err)
		}
		s := MergeSource{Ref: r}
		text := func(v string) *string {
			if v == "" {
				return nil
			}
			return &v
		}
		p := item.Platform
		s.Platform = index.PlatformPatch{
			OS: text(p.OS), Arch: text(p.Architecture), Variant: text(p.Variant), OSVersion: text(p.OSVersion),
		}
		if len(p.OSFeatures) > 0 {
			s.Platform.OSFeatures = &p.OSFeatures
		}
		if len(p.Features) > 0 {
			s.Platform.Features = &p.Features
		}
		sources = append(sources, s)
	}
	return names, sources, nil
}

// ParseDescriptor reads a descriptor as imagetools' -f has it: a manifest in the repository of dest, with the platform and the
// annotations that its entry is to have. ok is false when raw is something else.
func ParseDescriptor(raw []byte, dest ref.Ref) (_ MergeSource, ok bool, err error) {
	tree, err := jsontree.Parse(raw)
	if err != nil || tree.Get("digest") == nil {
		return MergeSource{}, false, nil
	}
	var desc ocispec.Descriptor
	if err := tree.Decode(&desc); err != nil {
		return MergeSource{}, true, fmt.Errorf("%w: the descriptor: %w", ErrInvalid, err)
	}
	if err := index.CheckDigest(desc.Digest); err != nil {
		return MergeSource{}, true, fmt.Errorf("%w: the descriptor: %w", ErrInvalid, err)
	}
	s := MergeSource{Ref: dest.WithDigest(desc.Digest), Annotations: desc.Annotations}
	if desc.Platform != nil {
		s.Platform = index.PatchOf(*desc.Platform)
	}
	return s, true, nil
}

// Template makes sources of manifest-tool's from-args: OS, ARCH and VARIANT in template stand for those of each platform.
func Template(template string, platforms []platform.Platform) ([]MergeSource, error) {
	if len(platforms) == 0 {
		return nil, fmt.Errorf("%w: a template needs the platforms that it is for", ErrInvalid)
	}
	var out []MergeSource
	for _, p := range platforms {
		// Placeholders are in capitals, which no repository has; tags may have them, and a name like "HOST" holds one.
		name := strings.NewReplacer("OS", p.OS, "ARCH", p.Arch, "VARIANT", p.Variant).Replace(template)
		r, err := ref.Parse(name)
		if err != nil {
			return nil, fmt.Errorf("template %q for %s: %w", template, p, err)
		}
		out = append(out, MergeSource{Ref: r, Platform: index.PatchOf(p.OCI())})
	}
	return out, nil
}

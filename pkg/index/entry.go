package index

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Entry is one descriptor of an index with everything it says, also what image-spec does not know.
type Entry struct {
	ocispec.Descriptor // what is known of it; to change an entry, use its methods
	node               *jsontree.Node
}

// NewEntry makes an entry of a descriptor.
func NewEntry(desc ocispec.Descriptor) (Entry, error) {
	raw, err := jsontree.Marshal(desc)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: entry %s: %w", ErrInvalid, desc.Digest, err)
	}
	node, err := jsontree.Parse(raw)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: entry %s: %w", ErrInvalid, desc.Digest, err)
	}
	e := Entry{node: node}
	return e, e.decode()
}

// Entries returns the entries of an index in their order.
func (x *Index) Entries() ([]Entry, error) {
	tree, err := jsontree.Parse(x.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return entriesOf(tree)
}

func entriesOf(tree *jsontree.Node) ([]Entry, error) {
	items := tree.Get("manifests").Items()
	out := make([]Entry, len(items))
	for i, node := range items {
		out[i].node = node
		if err := out[i].decode(); err != nil {
			return nil, fmt.Errorf("manifests[%d]: %w", i, err)
		}
	}
	return out, nil
}

// decode brings the descriptor up to date with the node.
func (e *Entry) decode() error {
	e.Descriptor = ocispec.Descriptor{}
	if err := e.node.Decode(&e.Descriptor); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := CheckDescriptor(e.Descriptor); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if IsConfig(e.MediaType) || IsLayer(e.MediaType) {
		return fmt.Errorf("%w: %s is no manifest but %q", ErrInvalid, e.Digest, e.MediaType)
	}
	return nil
}

// clone is an entry that can be changed by itself.
func (e Entry) clone() (Entry, error) {
	if e.node == nil {
		return NewEntry(e.Descriptor)
	}
	node, err := jsontree.Parse(e.node.Bytes())
	if err != nil {
		return Entry{}, fmt.Errorf("%w: entry %s: %w", ErrInvalid, e.Digest, err)
	}
	c := Entry{node: node}
	return c, c.decode()
}

// IsImage reports whether the entry stands for a platform: it is no attestation, no nested index, no artifact and
// nothing of an unknown type.
func (e Entry) IsImage() bool { return isImage(e.Descriptor) }

func isImage(d ocispec.Descriptor) bool {
	return IsManifest(d.MediaType) && !IsAttestation(d) && (d.ArtifactType == "" || IsConfig(d.ArtifactType))
}

// name is what errors and notes call the entry.
func (e Entry) name() string {
	if e.Platform != nil && !IsAttestation(e.Descriptor) {
		if p, err := platform.FromOCI(*e.Platform); err == nil {
			return p.String()
		}
	}
	return e.Digest.String()
}

// PlatformPatch changes parts of an entry's platform. A nil part stays, an empty one goes away.
type PlatformPatch struct {
	OS, Arch, Variant, OSVersion *string
	OSFeatures                   *[]string
	Features                     *[]string // of the processor: Docker's lists have them, image-spec reserves the name
}

// IsZero reports whether p changes nothing.
func (p PlatformPatch) IsZero() bool { return p == PlatformPatch{} }

// PatchOf is the patch that sets all of p, in p's own spelling. What p leaves out stays.
func PatchOf(p ocispec.Platform) PlatformPatch {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	patch := PlatformPatch{OS: text(p.OS), Arch: text(p.Architecture), Variant: text(p.Variant), OSVersion: text(p.OSVersion)}
	if len(p.OSFeatures) > 0 {
		patch.OSFeatures = &p.OSFeatures
	}
	return patch
}

// SetPlatform returns the entry with parts of its platform changed. Names must exist (see [platform.Parse]); another
// spelling of an architecture is written as Go spells it, while a variant stays as it is given: "v8" of arm64 too.
func (e Entry) SetPlatform(p PlatformPatch) (Entry, error) {
	if p.IsZero() {
		return e, nil
	}
	c, err := e.clone()
	if err != nil {
		return e, err
	}
	node := c.node.Get("platform")
	if node.Kind() != jsontree.Object {
		node = jsontree.NewObject()
		c.node.Set("platform", node)
	}
	if err := p.apply(node); err != nil {
		return e, fmt.Errorf("entry %s: %w", e.name(), err)
	}
	return c, c.decode()
}

func (p PlatformPatch) apply(node *jsontree.Node) error {
	get := func(key string, new *string) string {
		if new != nil {
			return *new
		}
		s, _ := node.Get(key).Text()
		return s
	}
	os, arch, variant := get("os", p.OS), get("architecture", p.Arch), get("variant", p.Variant)
	if os == "" {
		os = "linux" // as everywhere a lone architecture is understood
	}
	if arch == "" {
		return fmt.Errorf("%w: the platform has no architecture: set one", ErrInvalid)
	}
	if p.OS != nil || p.Arch != nil || p.Variant != nil {
		text := os + "/" + arch
		if variant != "" {
			text += "/" + variant
		}
		known, err := platform.Parse(text)
		if err != nil {
			return err
		}
		os = known.OS
		if !strings.EqualFold(known.Arch, arch) && variant == "" {
			variant = known.Variant // "armhf" says it
		}
		arch = known.Arch
	}
	// image-spec's order for a platform that is new.
	setText(node, "architecture", arch)
	setText(node, "os", os)
	setText(node, "os.version", get("os.version", p.OSVersion))
	if p.OSFeatures != nil {
		setList(node, "os.features", *p.OSFeatures)
	}
	setText(node, "variant", variant)
	if p.Features != nil {
		setList(node, "features", *p.Features)
	}
	return nil
}

// Annotate returns the entry with annotations set, and others removed.
func (e Entry) Annotate(set map[string]string, remove ...string) (Entry, error) {
	if len(set) == 0 && len(remove) == 0 {
		return e, nil
	}
	c, err := e.clone()
	if err != nil {
		return e, err
	}
	if err := annotate(c.node, set, remove); err != nil {
		return e, fmt.Errorf("entry %s: %w", e.name(), err)
	}
	return c, c.decode()
}

// SetArtifactType returns the entry with its artifactType; "" removes it.
func (e Entry) SetArtifactType(t string) (Entry, error) {
	c, err := e.clone()
	if err != nil {
		return e, err
	}
	setText(c.node, "artifactType", t)
	return c, c.decode()
}

// point returns the entry with another digest, size and media type, and all the rest of it.
func (e Entry) point(to ocispec.Descriptor) (Entry, error) {
	desc, err := NewEntry(ocispec.Descriptor{MediaType: to.MediaType, Digest: to.Digest, Size: to.Size})
	if err != nil {
		return e, err
	}
	c, err := e.clone()
	if err != nil {
		return e, err
	}
	for _, key := range []string{"mediaType", "digest", "size"} {
		c.node.Set(key, desc.node.Get(key))
	}
	c.node.Delete("data") // that of the old content
	return c, c.decode()
}

package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// dockerManifestFile is the table of contents of docker save's archives.
const dockerManifestFile = "manifest.json"

// dockerEntry is one image in it.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openDocker opens the image that r names in docker save's archive. Archives of Docker 25 and later are OCI layouts
// as well and are read as such, which keeps the image's own manifest and digest; for others one is made.
func openDocker(ctx context.Context, f files, r ref.Ref) (*fileImage, error) {
	img, layoutErr := openLayout(f, r)
	if layoutErr == nil {
		return img, nil
	}
	raw, err := readFile(f, dockerManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no archive of docker save: it has no %s (%w)", ErrInvalid, dockerManifestFile, layoutErr)
	}
	if err != nil {
		return nil, err
	}
	entries, err := parseDockerManifest(raw)
	if err != nil {
		return nil, err
	}
	entry, err := chooseDocker(entries, r.Tag)
	if err != nil {
		return nil, err
	}
	img = &fileImage{files: f, ref: r, made: map[digest.Digest][]byte{}, names: map[digest.Digest]string{}}
	return img, img.makeManifest(ctx, entry)
}

func parseDockerManifest(raw []byte) ([]dockerEntry, error) {
	fail := func(err error) ([]dockerEntry, error) {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, dockerManifestFile, err)
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return fail(err)
	}
	if tree.Kind() != jsontree.Array {
		return fail(fmt.Errorf("it is %s and no array", tree.Kind()))
	}
	var entries []dockerEntry
	if err := tree.Decode(&entries); err != nil {
		return fail(err)
	}
	for i, e := range entries {
		for _, name := range append([]string{e.Config}, e.Layers...) {
			if name == "" {
				return fail(fmt.Errorf("image %d names no config or layer", i+1))
			}
			if _, err := memberName(name); err != nil {
				return fail(fmt.Errorf("image %d: %w", i+1, err))
			}
		}
	}
	return entries, nil
}

// chooseDocker finds the image with the tag (or the full name) tag, or the only one there is when tag is "".
func chooseDocker(entries []dockerEntry, tag string) (dockerEntry, error) {
	var found []dockerEntry
	var names []string
	for _, e := range entries {
		if len(e.RepoTags) == 0 {
			names = append(names, fmt.Sprintf("%.100q", e.Config))
		}
		for _, t := range e.RepoTags {
			names = append(names, fmt.Sprintf("%.100q", t))
		}
		wanted := tag == "" || slices.ContainsFunc(e.RepoTags, func(t string) bool { return t == tag || tagOf(t) == tag })
		if wanted && !slices.ContainsFunc(found, func(o dockerEntry) bool { return o.Config == e.Config }) {
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return dockerEntry{}, fmt.Errorf("%w: it could be any of %s: add :TAG", ErrAmbiguous, listed(names))
	case tag == "":
		return dockerEntry{}, fmt.Errorf("%w: it holds no image", ErrNotFound)
	}
	return dockerEntry{}, fmt.Errorf("%w: no image is tagged %q; it holds %s", ErrNotFound, tag, listed(names))
}

// makeManifest makes the manifest that an old archive lacks: of OCI's types, with the layers as they lie in it.
func (i *fileImage) makeManifest(ctx context.Context, e dockerEntry) error {
	configName, err := memberName(e.Config)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	raw, err := readFile(i.files, configName)
	if err != nil {
		return fmt.Errorf("%w: the config: %w", ErrInvalid, err)
	}
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	// The config's name is its digest: "HEX.json", "sha256:HEX", "blobs/sha256/HEX".
	stated := strings.TrimPrefix(strings.TrimSuffix(path.Base(configName), ".json"), "sha256:")
	if d := digest.NewDigestFromEncoded(digest.SHA256, stated); d.Validate() == nil && d != config.Digest {
		return fmt.Errorf("%w: the config %q holds the bytes of %s", ErrCorrupt, e.Config, config.Digest)
	}
	c, err := parseConfig(raw)
	if err != nil {
		return err
	}
	if len(c.DiffIDs) != len(e.Layers) {
		return fmt.Errorf("%w: %s lists %d layers, but the config has %d diff_ids", ErrInvalid, dockerManifestFile, len(e.Layers), len(c.DiffIDs))
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{},
	}
	type seen struct {
		desc   ocispec.Descriptor
		diffID digest.Digest
	}
	known := make(map[string]seen)
	for n, name := range e.Layers {
		clean, err := memberName(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		l, ok := known[clean]
		if !ok {
			l.diffID = c.DiffIDs[n]
			if l.desc, err = describeLayer(ctx, i.files, clean, l.diffID); err != nil {
				return fmt.Errorf("layer %d: %w", n+1, err)
			}
			known[clean] = l
			i.names[l.desc.Digest] = clean
		}
		if l.diffID != c.DiffIDs[n] {
			return fmt.Errorf("%w: %q stands for two layers, with the diff_ids %s and %s", ErrInvalid, name, l.diffID, c.DiffIDs[n])
		}
		m.Layers = append(m.Layers, l.desc)
	}
	i.made[config.Digest] = raw
	manifest, err := jsontree.Marshal(m)
	if err != nil {
		return err
	}
	i.root = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	i.made[i.root.Digest] = manifest
	return nil
}

// describeLayer describes a layer by its first bytes: an uncompressed one has its diffID for a digest (whoever reads
// it verifies that); a compressed one is hashed.
func describeLayer(ctx context.Context, f files, name string, diffID digest.Digest) (_ ocispec.Descriptor, err error) {
	rc, size, err := f.open(name)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	head := make([]byte, sniffSize)
	n, err := io.ReadFull(rc, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return ocispec.Descriptor{}, err
	}
	head = head[:n]
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID, Size: size}
	switch format := layer.Sniff(head); {
	case format == layer.Gzip:
		desc.MediaType = ocispec.MediaTypeImageLayerGzip
	case format == layer.Zstd:
		desc.MediaType = ocispec.MediaTypeImageLayerZstd
	case compressed(head):
		return desc, fmt.Errorf("%w: %q is compressed with %s, which no image may be", ErrInvalid, name, format)
	default:
		return desc, nil
	}
	d := digest.Canonical.Digester()
	d.Hash().Write(head)
	if _, err := io.Copy(d.Hash(), contextReader{ctx, rc}); err != nil {
		return desc, err
	}
	desc.Digest = d.Digest()
	return desc, nil
}

// contextReader ends with the context's error.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}

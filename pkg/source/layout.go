package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// annotationContainerdName is where containerd and Docker put an image's full name in an index.json.
const annotationContainerdName = "io.containerd.image.name"

// fileImage is an image in a layout or archive.
type fileImage struct {
	files files
	ref   ref.Ref
	root  ocispec.Descriptor
	made  map[digest.Digest][]byte // documents that the archive does not hold as such
	names map[digest.Digest]string // blobs that are not where a layout has them
}

var _ Image = (*fileImage)(nil)

// openLayout opens the image that r names in the layout f.
func openLayout(f files, r ref.Ref) (*fileImage, error) {
	idx, err := readLayoutIndex(f)
	if err != nil {
		return nil, err
	}
	img := &fileImage{files: f, ref: r}
	if r.Digest != "" {
		img.root, err = img.byDigest(idx.Manifests)
	} else {
		img.root, err = choose(idx.Manifests, r.Tag)
	}
	if err != nil {
		return nil, err
	}
	img.root.Annotations = nil // of the layout's entry, not of the image
	return img, nil
}

// readLayoutIndex reads the files oci-layout and index.json.
func readLayoutIndex(f files) (*index.Index, error) {
	raw, err := readFile(f, ocispec.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no OCI layout: it has no file %s", ErrInvalid, ocispec.ImageLayoutFile)
	}
	if err != nil {
		return nil, err
	}
	if err := checkLayoutFile(raw); err != nil {
		return nil, err
	}
	if raw, err = readFile(f, ocispec.ImageIndexFile); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, ocispec.ImageIndexFile, err)
	}
	return idx, nil
}

// checkLayoutFile reads the file oci-layout.
func checkLayoutFile(raw []byte) error {
	var l ocispec.ImageLayout
	if _, err := jsontree.Decode(raw, &l); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, ocispec.ImageLayoutFile, err)
	}
	if l.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%w: the OCI layout has the version %.40q, and only %s is known", ErrInvalid, l.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// readFile reads a small file, unverified.
func readFile(f files, name string) (_ []byte, err error) {
	rc, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	if size > index.MaxSize {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than the limit of %d", ErrInvalid, name, size, index.MaxSize)
	}
	return io.ReadAll(io.LimitReader(rc, index.MaxSize+1))
}

// byDigest finds the image by r's digest: an entry of index.json, else any manifest among the blobs.
func (i *fileImage) byDigest(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	for _, e := range entries {
		if e.Digest == i.ref.Digest {
			return e, nil
		}
	}
	desc, err := describe(context.Background(), i, ocispec.Descriptor{Digest: i.ref.Digest})
	if errors.Is(err, ErrNotFound) {
		return desc, fmt.Errorf("%w; it holds %s", err, contents(entries))
	}
	return desc, err
}

// choose finds the entry of index.json that tag names, or the only image there is when tag is "".
func choose(entries []ocispec.Descriptor, tag string) (ocispec.Descriptor, error) {
	var exact, loose []ocispec.Descriptor
	add := func(list []ocispec.Descriptor, e ocispec.Descriptor) []ocispec.Descriptor {
		if slices.ContainsFunc(list, func(o ocispec.Descriptor) bool { return o.Digest == e.Digest }) {
			return list // one image under several names
		}
		return append(list, e)
	}
	for _, e := range entries {
		name := e.Annotations[ocispec.AnnotationRefName]
		switch {
		case tag == "" && isRelated(name): // a signature is not what a layout is about
		case tag == "" || name == tag:
			exact = add(exact, e)
		case tagOf(name) == tag || tagOf(e.Annotations[annotationContainerdName]) == tag:
			loose = add(loose, e)
		}
	}
	found := exact
	if len(found) == 0 {
		found = loose
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return ocispec.Descriptor{}, fmt.Errorf("%w: it could be any of %s: add :TAG or @DIGEST", ErrAmbiguous, contents(found))
	case tag == "":
		return ocispec.Descriptor{}, fmt.Errorf("%w: it holds no image", ErrNotFound)
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: no image is tagged %q; it holds %s", ErrNotFound, tag, contents(entries))
}

func isRelated(name string) bool {
	_, _, ok := RelatedTag(name)
	return ok
}

// tagOf returns the tag of a full image name, or "".
func tagOf(name string) string {
	name, _, _ = strings.Cut(name, "@")
	colon := strings.LastIndexByte(name, ':')
	if colon < 0 || strings.Contains(name[colon:], "/") {
		return ""
	}
	return name[colon+1:]
}

// contents lists entries of an index.json as a person would name them.
func contents(entries []ocispec.Descriptor) string {
	var names []string
	for _, e := range entries {
		name := e.Annotations[ocispec.AnnotationRefName]
		if name == "" {
			name = e.Annotations[annotationContainerdName]
		}
		if name == "" {
			name = "@" + e.Digest.String()
		}
		names = append(names, fmt.Sprintf("%.100q", name))
	}
	return listed(names)
}

func (i *fileImage) Root() ocispec.Descriptor { return i.root }
func (i *fileImage) Ref() ref.Ref             { return i.ref }
func (i *fileImage) Close() error             { return i.files.Close() }

func (i *fileImage) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := i.made[desc.Digest]; ok {
		return raw, checkSize(desc, raw)
	}
	if err := checkDocument(desc); err != nil {
		return nil, err
	}
	rc, err := i.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	return readDocument(rc, desc)
}

func (i *fileImage) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := index.CheckDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if raw, ok := i.made[desc.Digest]; ok {
		if err := checkSize(desc, raw); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	name, ok := i.names[desc.Digest]
	if !ok {
		name = "blobs/" + desc.Digest.Algorithm().String() + "/" + desc.Digest.Encoded()
	}
	rc, size, err := i.files.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the blob %s: %w", ErrNotFound, desc.Digest, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the blob %s: %w", desc.Digest, err)
	}
	if desc.Size > 0 && size != desc.Size {
		return nil, errors.Join(
			fmt.Errorf("%w: %s has %d bytes, but its descriptor says %d", ErrCorrupt, desc.Digest, size, desc.Size), rc.Close())
	}
	return verify(rc, desc)
}

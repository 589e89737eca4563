package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// layout is an image layout as a storage, which only reads: what arrives on the
// far side of an air gap is served as it is. Its index.json names the tags:
//
//   - "ghcr.io/o/app:1.0", the name of an image, is found as the store's refs are;
//   - "1.0", a tag alone, is one of the repository that has the layout's own name:
//     the last part of its path, without endings of archives.
//
// As in the store, every repository has all the content.
type layout struct {
	files *source.Layout
	tags  map[string]map[string]ocispec.Descriptor // REPO, TAG
	names []string                                 // of repositories: one spelling of each

	referrers map[digest.Digest][]ocispec.Descriptor
}

var _ storage = (*layout)(nil)

// errReadOnly is what would change a layout. Handlers refuse it earlier.
var errReadOnly = errors.New("a layout is only read")

func openLayout(ctx context.Context, name string) (_ *layout, err error) {
	files, err := source.OpenLayout(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("serving a layout: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, files.Close())
		}
	}()
	l := &layout{files: files, tags: map[string]map[string]ocispec.Descriptor{}, referrers: map[digest.Digest][]ocispec.Descriptor{}}
	own := ownName(name)
	for _, e := range files.Manifests() {
		l.add(own, e)
	}
	slices.Sort(l.names)
	l.names = slices.Compact(l.names)
	seen := map[digest.Digest]bool{}
	for _, e := range files.Manifests() {
		if err := l.walk(ctx, e, seen, 0); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// ownName is the repository of tags that name none: from "dir/Hello.tar.gz" it is "hello".
func ownName(path string) string {
	path = path[strings.LastIndexAny(path, `/\`)+1:]
	path = strings.ToLower(path)
	for _, end := range []string{".gz", ".zst", ".xz", ".bz2", ".tgz", ".tar", ".oci"} {
		path = strings.TrimSuffix(path, end)
	}
	if ref.CheckRepo(path) != nil {
		return "layout"
	}
	return path
}

// add enters the names of one entry of index.json.
func (l *layout) add(own string, e ocispec.Descriptor) {
	desc := ocispec.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size}
	for _, name := range []string{e.Annotations["io.containerd.image.name"], e.Annotations[ocispec.AnnotationRefName]} {
		var at []place
		switch {
		case name == "":
			continue
		case ref.CheckTag(name) == nil:
			at = []place{{repo: own, tag: name}}
		default:
			if r, err := ref.Parse("docker://" + name); err == nil {
				at = places(r.Familiar())
			}
		}
		for i, p := range at {
			if l.tags[p.repo] == nil {
				l.tags[p.repo] = map[string]ocispec.Descriptor{}
			}
			if _, have := l.tags[p.repo][p.tag]; !have || p.exact {
				l.tags[p.repo][p.tag] = desc
			}
			if i == 0 {
				l.names = append(l.names, p.repo)
			}
		}
	}
}

// walk reads what an entry leads to, for who refers to whom.
func (l *layout) walk(ctx context.Context, desc ocispec.Descriptor, seen map[digest.Digest]bool, depth int) error {
	if seen[desc.Digest] || depth > maxDepth {
		return nil
	}
	seen[desc.Digest] = true
	if len(seen) > maxManifests {
		return fmt.Errorf("%w: it holds more than %d manifests", ErrInvalid, maxManifests)
	}
	doc, err := l.document(ctx, desc.Digest)
	if errors.Is(err, errUnknown) { // a sparse layout, or a blob as a child
		return nil
	}
	if err != nil {
		return err
	}
	if doc.subject != "" {
		l.referrers[doc.subject] = append(l.referrers[doc.subject], doc.Descriptor)
	}
	for _, n := range doc.needs {
		if n.child {
			if err := l.walk(ctx, ocispec.Descriptor{Digest: n.digest}, seen, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	maxDepth     = 8
	maxManifests = 100_000
)

// document reads a manifest and verifies it.
func (l *layout) document(ctx context.Context, d digest.Digest) (*document, error) {
	f, err := l.OpenBlob(ctx, "", d)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxManifest {
		return nil, errUnknown // a blob
	}
	if d.Algorithm().FromBytes(raw) != d {
		return nil, fmt.Errorf("%w: the blob %s does not have its digest", source.ErrCorrupt, d)
	}
	doc, err := parseDocument("", raw)
	if err != nil {
		return nil, errUnknown // a blob
	}
	doc.Digest = d
	return doc, nil
}

// Repos implements storage.
func (l *layout) Repos(context.Context) ([]string, error) { return slices.Clone(l.names), nil }

// HasRepo implements storage.
func (l *layout) HasRepo(_ context.Context, repo string) (bool, error) {
	return len(l.tags[repo]) > 0, nil
}

// StatBlob implements storage.
func (l *layout) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	f, err := l.OpenBlob(ctx, repo, d)
	if err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	return size, errors.Join(err, f.Close())
}

// OpenBlob implements storage.
func (l *layout) OpenBlob(_ context.Context, _ string, d digest.Digest) (io.ReadSeekCloser, error) {
	f, err := l.files.Blob(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errUnknown
	}
	return f, err
}

// Resolve implements storage.
func (l *layout) Resolve(_ context.Context, repo, tag string) (ocispec.Descriptor, error) {
	if desc, ok := l.tags[repo][tag]; ok {
		return desc, nil
	}
	return ocispec.Descriptor{}, errUnknown
}

// Manifest implements storage.
func (l *layout) Manifest(ctx context.Context, _ string, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	doc, err := l.document(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: d, Size: doc.Size}, doc.raw, nil
}

// HasManifest implements storage.
func (l *layout) HasManifest(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	_, _, err := l.Manifest(ctx, repo, d)
	if errors.Is(err, errUnknown) {
		return false, nil
	}
	return err == nil, err
}

// Tags implements storage.
func (l *layout) Tags(_ context.Context, repo string) ([]string, error) {
	var list []string
	for t := range l.tags[repo] {
		list = append(list, t)
	}
	return list, nil
}

// Referrers implements storage.
func (l *layout) Referrers(_ context.Context, _ string, d digest.Digest) ([]ocispec.Descriptor, error) {
	return slices.Clone(l.referrers[d]), nil
}

// Usage implements storage: what is only read is not counted.
func (l *layout) Usage(context.Context) (int64, error) { return 0, nil }

// Collect implements storage.
func (l *layout) Collect(context.Context) (int64, error) { return 0, nil }

// Close implements storage.
func (l *layout) Close() error { return l.files.Close() }

// MountBlob implements storage.
func (l *layout) MountBlob(context.Context, string, digest.Digest, string) error { return errReadOnly }

// DeleteBlob implements storage.
func (l *layout) DeleteBlob(context.Context, string, digest.Digest) error { return errReadOnly }

// NewUpload implements storage.
func (l *layout) NewUpload(context.Context, digest.Algorithm) (upload, error) {
	return nil, errReadOnly
}

// PutManifest implements storage.
func (l *layout) PutManifest(context.Context, string, *document, []string) (bool, error) {
	return false, errReadOnly
}

// DeleteManifest implements storage.
func (l *layout) DeleteManifest(context.Context, string, digest.Digest) error { return errReadOnly }

// DeleteTag implements storage.
func (l *layout) DeleteTag(context.Context, string, string) error { return errReadOnly }

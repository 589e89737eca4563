package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/bundle"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// bundleSink notes what a bundle is to hold; it is written when all is known.
type bundleSink struct {
	known map[digest.Digest]bool // what the other side has

	noting sync.Mutex // guards what follows
	docs   map[digest.Digest]document
	blobs  map[digest.Digest]ocispec.Descriptor
	base   map[digest.Digest]ocispec.Descriptor
	open   map[digest.Digest]registry.Open
}

var _ sink = (*bundleSink)(nil)

func newBundleSink(known map[digest.Digest]bool) *bundleSink {
	return &bundleSink{
		known: known, docs: map[digest.Digest]document{}, blobs: map[digest.Digest]ocispec.Descriptor{},
		base: map[digest.Digest]ocispec.Descriptor{}, open: map[digest.Digest]registry.Open{},
	}
}

func (s *bundleSink) same(ref.Ref) bool { return false }
func (s *bundleSink) close() error      { return nil }

// holds says no: documents are small, and with all of them the archive can be checked without its base.
func (s *bundleSink) holds(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *bundleSink) local(context.Context, ocispec.Descriptor) ([]byte, bool) { return nil, false }

func (s *bundleSink) hasBlob(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	return s.known[desc.Digest], nil
}

func (s *bundleSink) putBlob(_ context.Context, desc ocispec.Descriptor, open registry.Open, _ ref.Ref) (registry.Moved, error) {
	s.noting.Lock()
	defer s.noting.Unlock()
	bare := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	if s.known[desc.Digest] {
		s.base[desc.Digest] = bare
		return registry.Existed, nil
	}
	s.blobs[desc.Digest], s.open[desc.Digest] = bare, open
	return registry.Uploaded, nil
}

func (s *bundleSink) putDocument(_ context.Context, doc document) error {
	if err := check(doc); err != nil {
		return err
	}
	s.noting.Lock()
	defer s.noting.Unlock()
	s.docs[doc.desc.Digest] = doc
	return nil
}

func (s *bundleSink) name(context.Context, []namedDocument) error { return nil }

// contents is what was noted, with what named are called. Equal content gives equal contents, whatever the network did.
func (s *bundleSink) contents(ctx context.Context, named []namedDocument) (bundle.Contents, error) {
	var c bundle.Contents
	listed, err := s.referrerLists(named)
	if err != nil {
		return c, err
	}
	tags := map[string]bool{}
	seen := map[string]bool{}
	for _, n := range append(withoutReferrers(named), listed...) {
		if err := s.putDocument(ctx, n.document); err != nil {
			return c, err
		}
		for _, name := range n.names {
			if key := name.String() + " " + n.desc.Digest.String(); seen[key] {
				continue
			} else {
				seen[key] = true
			}
			c.Roots = append(c.Roots, rootEntry(n.document, name, tags))
		}
	}
	for _, n := range named { // referrers, too
		if err := s.putDocument(ctx, n.document); err != nil {
			return c, err
		}
	}
	for _, doc := range s.docs {
		c.Documents = append(c.Documents, ocispec.Descriptor{MediaType: doc.desc.MediaType, Digest: doc.desc.Digest, Size: doc.desc.Size})
	}
	for _, b := range s.blobs {
		if _, ok := s.docs[b.Digest]; !ok {
			c.Blobs = append(c.Blobs, b)
		}
	}
	for _, b := range s.base {
		c.Base = append(c.Base, b)
	}
	for _, l := range [][]ocispec.Descriptor{c.Documents, c.Blobs, c.Base} {
		slices.SortFunc(l, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	}
	return c, nil
}

// rootEntry is how a root stands in index.json: under its whole name, and under its tag for readers of layouts. A tag
// that another name has already is left to that.
func rootEntry(doc document, name ref.Ref, tags map[string]bool) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: doc.desc.MediaType, Digest: doc.desc.Digest, Size: doc.desc.Size, Annotations: map[string]string{}}
	if name.Kind == ref.Registry {
		d.Annotations[bundle.AnnotationName] = name.String()
	}
	switch {
	case name.Tag != "" && !tags[name.Tag]:
		d.Annotations[ocispec.AnnotationRefName] = name.Tag
		tags[name.Tag] = true
	case name.Kind == ref.Registry && name.Tag != "":
		d.Annotations[ocispec.AnnotationRefName] = name.String()
	}
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
	return d
}

// referrerLists are the indexes of referrers among named, for each repository.
func (s *bundleSink) referrerLists(named []namedDocument) ([]namedDocument, error) {
	byRepo := map[ref.Ref][]namedDocument{}
	var order []ref.Ref
	for _, n := range named {
		if n.subject == "" {
			continue
		}
		repo := n.names[0].WithTag("")
		if byRepo[repo] == nil {
			order = append(order, repo)
		}
		byRepo[repo] = append(byRepo[repo], n)
	}
	var out []namedDocument
	for _, repo := range order {
		lists, err := referrerIndexes(byRepo[repo], func(string) ([]byte, error) { return nil, nil })
		if err != nil {
			return nil, err
		}
		for _, l := range lists {
			l.names = []ref.Ref{repo.WithTag(l.names[0].Tag)}
			out = append(out, l)
		}
	}
	return out, nil
}

// reader opens what was noted.
func (s *bundleSink) reader(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	s.noting.Lock()
	doc, isDoc := s.docs[desc.Digest]
	open := s.open[desc.Digest]
	s.noting.Unlock()
	switch {
	case isDoc:
		return io.NopCloser(strings.NewReader(string(doc.raw))), nil
	case open == nil:
		return nil, fmt.Errorf("%w: nothing says where %s is", ErrIncomplete, desc.Digest)
	}
	return open(ctx)
}

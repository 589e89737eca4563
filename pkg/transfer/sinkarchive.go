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

	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// archiveSink is a tar, which is written from its start to its end: documents and blobs are noted on the way and
// written when names are.
type archiveSink struct {
	m    *mover
	at   ref.Ref
	dest string

	noting sync.Mutex // guards the three below
	docs   []document
	blobs  []ocispec.Descriptor
	open   map[digest.Digest]registry.Open
}

var _ sink = (*archiveSink)(nil)

func newArchiveSink(m *mover, at ref.Ref) (*archiveSink, error) {
	return &archiveSink{m: m, at: at, dest: at.Path, open: map[digest.Digest]registry.Open{}}, nil
}

func (s *archiveSink) same(ref.Ref) bool { return false }
func (s *archiveSink) close() error      { return nil }

func (s *archiveSink) holds(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *archiveSink) hasBlob(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *archiveSink) local(context.Context, ocispec.Descriptor) ([]byte, bool) { return nil, false }

func (s *archiveSink) putBlob(_ context.Context, desc ocispec.Descriptor, open registry.Open, _ ref.Ref) (registry.Moved, error) {
	s.noting.Lock()
	defer s.noting.Unlock()
	s.open[desc.Digest] = open
	s.blobs = append(s.blobs, desc)
	return registry.Uploaded, nil
}

func (s *archiveSink) putDocument(_ context.Context, doc document) error {
	if err := check(doc); err != nil {
		return err
	}
	s.noting.Lock()
	defer s.noting.Unlock()
	s.docs = append(s.docs, doc)
	return nil
}

func (s *archiveSink) name(ctx context.Context, named []namedDocument) error {
	env := output.Env{Stdout: s.m.env.Stdout, Dir: s.m.env.Dir}
	if s.at.Kind == ref.DockerArchive {
		return s.docker(ctx, named, env)
	}
	for _, n := range named {
		if err := check(n.document); err != nil {
			return err
		}
	}
	lists, err := referrerIndexes(named, func(string) ([]byte, error) { return nil, nil })
	if err != nil {
		return err
	}
	a := output.Archive{Named: inLayout(append(withoutReferrers(named), lists...)), Open: s.opener}
	byDigest := func(a, b digest.Digest) int { return strings.Compare(string(a), string(b)) }
	seen := map[digest.Digest]bool{}
	for _, n := range append(named, lists...) {
		if !seen[n.desc.Digest] {
			seen[n.desc.Digest] = true
			a.Docs = append(a.Docs, output.Document{Desc: n.desc, Raw: n.raw})
		}
	}
	// In which order they came depends on the network: equal content gives equal bytes.
	slices.SortFunc(s.docs, func(a, b document) int { return byDigest(a.desc.Digest, b.desc.Digest) })
	slices.SortFunc(s.blobs, func(a, b ocispec.Descriptor) int { return byDigest(a.Digest, b.Digest) })
	for _, d := range s.docs {
		if !seen[d.desc.Digest] {
			seen[d.desc.Digest] = true
			a.Docs = append(a.Docs, output.Document{Desc: d.desc, Raw: d.raw})
		}
	}
	for _, b := range s.blobs {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			a.Blobs = append(a.Blobs, b)
		}
	}
	return output.WriteArchive(ctx, s.dest, a, env)
}

// opener opens what was noted.
func (s *archiveSink) opener(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	s.noting.Lock()
	open := s.open[desc.Digest]
	s.noting.Unlock()
	if open == nil {
		return nil, fmt.Errorf("%w: nothing says where %s is", ErrIncomplete, desc.Digest)
	}
	return open(ctx)
}

// docker writes the archive of docker save: one image, whose whole names are in it.
func (s *archiveSink) docker(ctx context.Context, named []namedDocument, env output.Env) error {
	if len(named) != 1 {
		return fmt.Errorf("%w: a docker archive holds one image here, not %d", ErrInvalid, len(named))
	}
	d, err := output.Open(output.Spec{Type: "docker", Dest: s.dest}, env)
	if err != nil {
		return err
	}
	n := named[0]
	return d.Write(ctx, output.Product{Root: n.desc, Raw: n.raw, Names: n.whole, Content: noted{s}})
}

// noted is what was noted, as the content of a product.
type noted struct{ s *archiveSink }

// Open implements output.Content.
func (n noted) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	n.s.noting.Lock()
	i := slices.IndexFunc(n.s.docs, func(d document) bool { return d.desc.Digest == desc.Digest })
	var raw []byte
	if i >= 0 {
		raw = n.s.docs[i].raw
	}
	n.s.noting.Unlock()
	if raw != nil {
		return io.NopCloser(strings.NewReader(string(raw))), nil
	}
	return n.s.opener(ctx, desc)
}

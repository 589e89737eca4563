package transfer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// open opens the place that n is in, to write.
func (m *mover) open(ctx context.Context, n ref.Ref, others []*place) (sink, error) {
	switch n.Kind {
	case ref.Registry:
		if m.env.Registry == nil {
			return nil, fmt.Errorf("%w: no registry can be written to here", errors.ErrUnsupported)
		}
		s := &registrySink{env: m.env, client: m.env.Registry, repo: n, condition: m.o.Condition}
		for _, o := range others { // what has just been pushed there can be mounted
			if r, ok := o.sink.(*registrySink); ok && r.repo.Host == n.Host {
				s.pushed = append(s.pushed, r.repo)
			}
		}
		return s, nil
	case ref.Store:
		if m.env.Store == nil {
			return nil, fmt.Errorf("%w: no store can be written to here", errors.ErrUnsupported)
		}
		return &storeSink{store: m.env.Store}, nil
	case ref.OCILayout:
		if m.o.DryRun {
			return &dryLayout{path: m.path(n.Path)}, nil
		}
		l, err := output.OpenLayout(m.path(n.Path))
		if err != nil {
			return nil, err
		}
		return &layoutSink{layout: l, at: n, opener: m.env.opener()}, nil
	case ref.OCIArchive, ref.DockerArchive:
		return newArchiveSink(m, n)
	}
	return nil, fmt.Errorf("%w: nothing can be written to a reference of kind %q", errors.ErrUnsupported, n.Kind)
}

// path is a path of a reference as the working directory of env has it.
func (m *mover) path(p string) string {
	if m.env.Dir == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(m.env.Dir, p)
}

// mountable reports whether what is read at from can be mounted where s writes.
func mountable(s sink, from ref.Ref) bool {
	r, ok := s.(*registrySink)
	return ok && from.Kind == ref.Registry && from.Host == r.repo.Host
}

// storeSink is the local store.
type storeSink struct{ store *store.Store }

var _ sink = (*storeSink)(nil)

func (s *storeSink) same(r ref.Ref) bool { return r.Kind == ref.Store }
func (s *storeSink) close() error        { return nil }

// holds says no: a store may hold an index and not all of its children.
func (s *storeSink) holds(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *storeSink) local(ctx context.Context, desc ocispec.Descriptor) ([]byte, bool) {
	raw, err := s.store.ReadAll(ctx, desc, maxDocument)
	return raw, err == nil
}

func (s *storeSink) hasBlob(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	size, err := s.store.Stat(desc.Digest)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && (desc.Size <= 0 || size == desc.Size), err
}

func (s *storeSink) putBlob(ctx context.Context, desc ocispec.Descriptor, open registry.Open, _ ref.Ref) (registry.Moved, error) {
	has, err := s.hasBlob(ctx, desc)
	if has || err != nil {
		return registry.Existed, err
	}
	rc, err := open(ctx)
	if err != nil {
		return registry.Uploaded, err
	}
	return registry.Uploaded, errors.Join(s.store.PutExpected(ctx, desc, rc), rc.Close())
}

func (s *storeSink) putDocument(ctx context.Context, doc document) error {
	if err := check(doc); err != nil {
		return err
	}
	_, err := s.store.PutBytes(ctx, doc.desc.MediaType, doc.raw)
	return err
}

func (s *storeSink) name(ctx context.Context, named []namedDocument) error {
	for _, n := range named {
		if err := s.putDocument(ctx, n.document); err != nil {
			return err
		}
		for _, name := range n.names {
			desc := n.desc
			desc.Annotations, desc.Platform = nil, nil
			if name.Name == "" { // @DIGEST: content without a name would be collected
				return fmt.Errorf("%w: %s names nothing: give it a name, store:NAME[:TAG]", ErrInvalid, name)
			}
			if err := s.store.SetRef(ctx, name.Familiar(), desc); err != nil {
				return err
			}
		}
	}
	return nil
}

// check holds a document against its descriptor.
func check(doc document) error {
	if int64(len(doc.raw)) != doc.desc.Size {
		return fmt.Errorf("%w: %s has %d bytes, its descriptor says %d", ErrInvalid, doc.desc.Digest, len(doc.raw), doc.desc.Size)
	}
	if a := doc.desc.Digest.Algorithm(); !a.Available() {
		return fmt.Errorf("%w: %s: %q is an unsupported digest algorithm", ErrInvalid, doc.desc.Digest, a)
	} else if got := a.FromBytes(doc.raw); got != doc.desc.Digest {
		return fmt.Errorf("%w: the bytes of %s are those of %s", ErrInvalid, doc.desc.Digest, got)
	}
	return nil
}

package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// layoutSink is an OCI layout directory.
type layoutSink struct {
	layout *output.Layout
	at     ref.Ref
	opener *source.Opener
}

var _ sink = (*layoutSink)(nil)

func (s *layoutSink) same(r ref.Ref) bool { return r.Kind == ref.OCILayout && r.Path == s.at.Path }
func (s *layoutSink) close() error        { return s.layout.Close() }

// holds says no: a layout may hold an index and not all of its children.
func (s *layoutSink) holds(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *layoutSink) local(ctx context.Context, desc ocispec.Descriptor) ([]byte, bool) {
	return s.layout.Read(ctx, desc)
}

func (s *layoutSink) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return s.layout.Has(ctx, desc), nil
}

func (s *layoutSink) putBlob(ctx context.Context, desc ocispec.Descriptor, open registry.Open, _ ref.Ref) (registry.Moved, error) {
	if s.layout.Has(ctx, desc) {
		return registry.Existed, nil
	}
	rc, err := open(ctx)
	if err != nil {
		return registry.Uploaded, err
	}
	return registry.Uploaded, errors.Join(s.layout.Put(ctx, desc, rc), rc.Close())
}

func (s *layoutSink) putDocument(ctx context.Context, doc document) error {
	if err := check(doc); err != nil {
		return err
	}
	if s.layout.Has(ctx, doc.desc) {
		return nil
	}
	return s.layout.Put(ctx, doc.desc, bytes.NewReader(doc.raw))
}

func (s *layoutSink) name(ctx context.Context, named []namedDocument) error {
	for _, n := range named {
		if err := s.putDocument(ctx, n.document); err != nil {
			return err
		}
	}
	lists, err := referrerIndexes(named, func(tag string) ([]byte, error) { return tagged(ctx, s.opener, s.at.WithTag(tag)) })
	if err != nil {
		return err
	}
	for _, n := range lists {
		if err := s.putDocument(ctx, n.document); err != nil {
			return err
		}
	}
	return s.layout.Commit(ctx, inLayout(append(withoutReferrers(named), lists...)))
}

// inLayout is how documents are named in an index.json.
func inLayout(named []namedDocument) []output.Named {
	out := make([]output.Named, 0, len(named))
	for _, n := range named {
		at := output.Named{Desc: n.desc}
		at.Desc.Annotations = nil // of the entry it was read from
		if index.IsIndex(n.desc.MediaType) {
			at.Desc.Platform = nil
		}
		bare := false
		for _, r := range n.names {
			if r.Tag != "" {
				at.Tags = append(at.Tags, r.Tag)
			} else {
				bare = true
			}
		}
		if bare || len(n.names) == 0 {
			at.Names = n.whole
		}
		out = append(out, at)
	}
	return out
}

// dryLayout is a layout directory that is only looked at.
type dryLayout struct{ path string }

var _ sink = (*dryLayout)(nil)

func (s *dryLayout) same(ref.Ref) bool { return false }
func (s *dryLayout) close() error      { return nil }

func (s *dryLayout) holds(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (s *dryLayout) local(context.Context, ocispec.Descriptor) ([]byte, bool) { return nil, false }

func (s *dryLayout) hasBlob(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	info, err := os.Lstat(filepath.Join(s.path, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	return err == nil && info.Size() == desc.Size, nil
}

// opener opens a blob, unverified.
func (s *dryLayout) opener(desc ocispec.Descriptor) registry.Open {
	return func(context.Context) (io.ReadCloser, error) {
		return os.Open(filepath.Join(s.path, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	}
}

func (s *dryLayout) putBlob(context.Context, ocispec.Descriptor, registry.Open, ref.Ref) (registry.Moved, error) {
	return registry.Existed, errors.ErrUnsupported
}

func (s *dryLayout) putDocument(context.Context, document) error { return errors.ErrUnsupported }
func (s *dryLayout) name(context.Context, []namedDocument) error { return errors.ErrUnsupported }

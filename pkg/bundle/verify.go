package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
)

// Verify reads the whole archive: every byte of it is as [Write] makes it, and everything that its roots reach is in it
// or among its base.
func (a *Archive) Verify(ctx context.Context) error {
	if err := a.structure(ctx); err != nil {
		return fmt.Errorf("%s: %w", a.file.name, err)
	}
	for i := range a.plan.members {
		if err := a.member(ctx, &a.plan.members[i]); err != nil {
			return fmt.Errorf("%s: %w", a.file.name, err)
		}
	}
	if err := a.same("its end", make([]byte, 2*block), a.plan.size-2*block); err != nil {
		return fmt.Errorf("%s: %w", a.file.name, err)
	}
	_, err := a.Reach(ctx, a.Contents.Roots)
	return err
}

// member compares one member with what it has to be.
func (a *Archive) member(ctx context.Context, m *member) error {
	h, err := m.headerBytes()
	if err != nil {
		return err
	}
	if err := a.same("the header of "+m.name, h, m.at); err != nil {
		return err
	}
	if m.raw != nil {
		if err := a.same(m.name, m.raw, m.data()); err != nil {
			return err
		}
	} else if m.desc.Digest != "" && !m.isIn(ctx, a.file) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s, at byte %d, is not what its name says", ErrCorrupt, m.name, m.data())
	}
	return a.same("what follows "+m.name, make([]byte, padded(m.size())-m.size()), m.data()+m.size())
}

// same compares bytes of the file.
func (a *Archive) same(what string, want []byte, at int64) error {
	got := make([]byte, len(want))
	if _, err := a.file.ReadAt(got, at); err != nil && !(errors.Is(err, io.EOF) && len(want) == 0) {
		if errors.Is(err, io.EOF) {
			return a.short()
		}
		return err
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				at += int64(i)
				break
			}
		}
		return fmt.Errorf("%w: %s was changed at byte %d", ErrCorrupt, what, at)
	}
	return nil
}

func (a *Archive) short() error {
	return fmt.Errorf("%w: it has %d of its %d bytes: carry it again, or what is missing of it", ErrIncomplete, a.file.size, a.plan.size)
}

// structure looks at the headers only, so that what is missing and what is too much is told in whole.
func (a *Archive) structure(ctx context.Context) error {
	if a.file.size < a.plan.size {
		return a.short()
	}
	want := map[string]bool{}
	for _, m := range a.plan.members {
		want[m.name] = true
	}
	have := map[string]bool{}
	r := tar.NewReader(io.NewSectionReader(a.file, 0, a.file.size))
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: after %d members: %w", ErrCorrupt, len(have), err)
		}
		switch {
		case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
			return fmt.Errorf("%w: member %s is of type %q: only files and directories are in it", ErrInvalid, readable(h.Name), h.Typeflag)
		case !want[h.Name]:
			return fmt.Errorf("%w: member %s is not among its contents", ErrInvalid, readable(h.Name))
		case have[h.Name]:
			return fmt.Errorf("%w: two members are named %s", ErrInvalid, readable(h.Name))
		}
		have[h.Name] = true
	}
	var missing []string
	for _, m := range a.plan.members {
		if !have[m.name] && !m.dir {
			missing = append(missing, a.describe(ctx, m))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: it lacks %s", ErrIncomplete, strings.Join(missing, ", "))
	}
	if a.file.size > a.plan.size {
		return fmt.Errorf("%w: %d bytes follow its end", ErrCorrupt, a.file.size-a.plan.size)
	}
	return nil
}

// describe names a missing member with the images that need it, as far as the documents tell.
func (a *Archive) describe(ctx context.Context, m member) string {
	if m.desc.Digest == "" {
		return m.name
	}
	var of []string
	for _, root := range a.Contents.Roots {
		r := reacher{a: a, open: a.lenient, seen: map[digest.Digest]bool{}}
		_ = r.document(ctx, root, 0) // as far as it goes
		if r.seen[m.desc.Digest] && !slices.Contains(of, Name(root)) {
			of = append(of, Name(root))
		}
	}
	if len(of) == 0 {
		return m.desc.Digest.String()
	}
	return fmt.Sprintf("%s (of %s)", m.desc.Digest, strings.Join(of, ", "))
}

// lenient finds a document wherever it lies in an archive of which something is missing.
func (a *Archive) lenient(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	r := tar.NewReader(io.NewSectionReader(a.file, 0, a.file.size))
	for {
		h, err := r.Next()
		if err != nil {
			return nil, err
		}
		if h.Name == blobName(desc.Digest) && h.Size <= index.MaxSize {
			raw, err := io.ReadAll(r)
			if err == nil && desc.Digest.Algorithm().FromBytes(raw) != desc.Digest {
				err = ErrCorrupt
			}
			return raw, err
		}
	}
}

// Reached is what roots lead to.
type Reached struct {
	Documents []ocispec.Descriptor
	Blobs     []ocispec.Descriptor // in the archive
	Base      []ocispec.Descriptor // of the base
}

// Reach lists what roots lead to, once each. What is neither in the archive nor in its base is an error.
func (a *Archive) Reach(ctx context.Context, roots []ocispec.Descriptor) (Reached, error) {
	r := reacher{a: a, open: a.Document, seen: map[digest.Digest]bool{}, base: map[digest.Digest]bool{}}
	for _, d := range a.Contents.Base {
		r.base[d.Digest] = true
	}
	for _, root := range roots {
		if err := r.document(ctx, root, 0); err != nil {
			return r.out, fmt.Errorf("%s: %s: %w", a.file.name, Name(root), err)
		}
	}
	if len(r.missing) > 0 {
		return r.out, fmt.Errorf("%s: %w: its images need, and neither it nor its base has, %s", a.file.name, ErrIncomplete, strings.Join(r.missing, ", "))
	}
	return r.out, nil
}

type reacher struct {
	a       *Archive
	open    func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	seen    map[digest.Digest]bool
	base    map[digest.Digest]bool
	path    []digest.Digest
	out     Reached
	missing []string
}

func (r *reacher) document(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	switch {
	case slices.Contains(r.path, desc.Digest):
		return fmt.Errorf("%w: cycle at %s", ErrInvalid, desc.Digest)
	case r.seen[desc.Digest]:
		return nil
	case depth > index.MaxNesting:
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", ErrInvalid, desc.Digest, index.MaxNesting)
	}
	r.seen[desc.Digest] = true
	if !r.a.Has(desc.Digest) {
		r.missing = append(r.missing, desc.Digest.String())
		return nil
	}
	r.out.Documents = append(r.out.Documents, desc)
	r.path = append(r.path, desc.Digest)
	defer func() { r.path = r.path[:len(r.path)-1] }()
	if !index.IsIndex(desc.MediaType) && !index.IsManifest(desc.MediaType) {
		return nil // of a type that is not known here
	}
	raw, err := r.open(ctx, desc)
	if err != nil {
		return err
	}
	if index.IsIndex(desc.MediaType) {
		idx, err := index.Parse(raw)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrInvalid, desc.Digest, err)
		}
		for _, child := range idx.Manifests {
			if err := r.document(ctx, child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	m, err := index.ParseManifest(raw)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, desc.Digest, err)
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		r.blob(b)
	}
	return nil
}

func (r *reacher) blob(b ocispec.Descriptor) {
	if r.seen[b.Digest] {
		return
	}
	r.seen[b.Digest] = true
	switch {
	case r.a.Has(b.Digest):
		r.out.Blobs = append(r.out.Blobs, b)
	case r.base[b.Digest]:
		r.out.Base = append(r.out.Base, b)
	case index.IsForeign(b.MediaType): // whoever wants it gets it from its owner
	default:
		r.missing = append(r.missing, b.Digest.String())
	}
}

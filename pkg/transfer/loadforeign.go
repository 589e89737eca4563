package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/bundle"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// foreign verifies an archive of another program: everything that its images reach is there, and what its digest says.
func (l *loader) foreign(ctx context.Context) error {
	opener := l.m.env.opener()
	opener.Spool = l.o.Spool
	r := ref.Ref{Kind: ref.DockerArchive, Path: l.file.Path()} // OCI archives are read as such
	names, err := opener.Names(ctx, r)
	if err != nil {
		return err
	}
	v := verifier{missing: map[digest.Digest][]string{}, seen: map[digest.Digest]bool{}}
	for _, n := range names {
		img, err := opener.Open(ctx, n.Ref)
		if err != nil {
			return err
		}
		l.m.opened = append(l.m.opened, img)
		desc := img.Root()
		desc.Platform, desc.Annotations = nil, nil
		shown := n.Name
		if shown == "" {
			shown = desc.Digest.String()
		}
		if err := v.document(ctx, img, desc, shown, nil); err != nil {
			return fmt.Errorf("%s: %w", shown, err)
		}
		if err := l.add(desc, img, n.Name); err != nil {
			return err
		}
	}
	return v.verdict()
}

// verifier reads everything that images reach, once.
type verifier struct {
	seen    map[digest.Digest]bool
	missing map[digest.Digest][]string // the images that need a blob
}

func (v *verifier) verdict() error {
	if len(v.missing) == 0 {
		return nil
	}
	var lines []string
	for d, of := range v.missing {
		lines = append(lines, fmt.Sprintf("%s (of %s)", d, strings.Join(of, ", ")))
	}
	slices.Sort(lines)
	return fmt.Errorf("%w: it lacks %s", bundle.ErrIncomplete, strings.Join(lines, ", "))
}

func (v *verifier) lacks(d digest.Digest, name string) {
	if !slices.Contains(v.missing[d], name) {
		v.missing[d] = append(v.missing[d], name)
	}
}

func (v *verifier) document(ctx context.Context, img source.Image, desc ocispec.Descriptor, name string, path []digest.Digest) error {
	if slices.Contains(path, desc.Digest) {
		return fmt.Errorf("%w: cycle at %s", source.ErrInvalid, desc.Digest)
	}
	if len(path) > maxDepth {
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, desc.Digest, maxDepth)
	}
	if v.seen[desc.Digest] && v.missing[desc.Digest] == nil {
		return nil
	}
	v.seen[desc.Digest] = true
	raw, err := img.Manifest(ctx, desc)
	if errors.Is(err, source.ErrNotFound) {
		v.lacks(desc.Digest, name)
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case index.IsIndex(desc.MediaType):
		idx, err := index.Parse(raw)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", source.ErrInvalid, desc.Digest, err)
		}
		for _, child := range idx.Manifests {
			if err := v.document(ctx, img, child, name, append(slices.Clone(path), desc.Digest)); err != nil {
				return err
			}
		}
	case index.IsManifest(desc.MediaType):
		m, err := index.ParseManifest(raw)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", source.ErrInvalid, desc.Digest, err)
		}
		for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if err := v.blob(ctx, img, b, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verifier) blob(ctx context.Context, img source.Image, desc ocispec.Descriptor, name string) error {
	if index.IsForeign(desc.MediaType) || v.seen[desc.Digest] && v.missing[desc.Digest] == nil {
		return nil
	}
	v.seen[desc.Digest] = true
	rc, err := img.Blob(ctx, desc)
	if errors.Is(err, source.ErrNotFound) {
		v.lacks(desc.Digest, name)
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, contextReader{ctx, rc})
	return errors.Join(err, rc.Close())
}

// contextReader stops with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// ReadSince reads what another place has: an archive that was loaded there, or the lock that was written with it.
func ReadSince(ctx context.Context, env Env, path string) (_ bundle.Contents, err error) {
	path = (&mover{env: env}).path(path)
	if raw, ok := bundle.ReadLock(path); ok {
		return bundle.ParseContents(raw)
	}
	f, err := bundle.OpenFile(ctx, path, nil, "")
	if err != nil {
		return bundle.Contents{}, notFound(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := bundle.Read(f)
	if err == nil {
		return a.Contents, nil
	}
	if !errors.Is(err, bundle.ErrForeign) {
		return bundle.Contents{}, err
	}
	return foreignContents(ctx, env, f.Path())
}

// foreignContents is what an archive of another program holds.
func foreignContents(ctx context.Context, env Env, path string) (c bundle.Contents, err error) {
	opener := env.opener()
	names, err := opener.Names(ctx, ref.Ref{Kind: ref.DockerArchive, Path: path})
	if err != nil {
		return c, err
	}
	seen := map[digest.Digest]bool{}
	for _, n := range names {
		img, err := opener.Open(ctx, n.Ref)
		if err != nil {
			return c, err
		}
		err = gather(ctx, img, img.Root(), seen, &c, 0)
		if err = errors.Join(err, img.Close()); err != nil {
			return c, err
		}
	}
	return c, nil
}

// gather lists what is there of what a document reaches.
func gather(ctx context.Context, img source.Image, desc ocispec.Descriptor, seen map[digest.Digest]bool, c *bundle.Contents, depth int) error {
	if seen[desc.Digest] || depth > maxDepth {
		return nil
	}
	seen[desc.Digest] = true
	raw, err := img.Manifest(ctx, desc)
	if errors.Is(err, source.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c.Documents = append(c.Documents, desc)
	if idx, err := index.Parse(raw); err == nil {
		for _, child := range idx.Manifests {
			if err := gather(ctx, img, child, seen, c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	m, err := index.ParseManifest(raw)
	if err != nil {
		return nil //nolint:nilerr // of a type that is not known here
	}
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		rc, err := img.Blob(ctx, b)
		if err == nil {
			c.Blobs = append(c.Blobs, b)
			err = rc.Close()
		}
		if err != nil && !errors.Is(err, source.ErrNotFound) {
			return err
		}
	}
	return nil
}

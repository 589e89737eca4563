package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// Manifest implements storage.
func (s *stored) Manifest(ctx context.Context, repo string, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	s.noted.Lock()
	mediaType, gone := s.types[d], s.deleted[repo+"@"+d.String()]
	s.noted.Unlock()
	if gone {
		return ocispec.Descriptor{}, nil, errUnknown
	}
	size, err := s.s.Stat(d)
	if err != nil {
		return ocispec.Descriptor{}, nil, unknownInStore(err)
	}
	if size > maxManifest {
		return ocispec.Descriptor{}, nil, errUnknown // a blob
	}
	rc, err := s.s.Open(ctx, ocispec.Descriptor{Digest: d, Size: size})
	if err != nil {
		return ocispec.Descriptor{}, nil, unknownInStore(err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	doc, err := parseDocument(mediaType, raw)
	if err != nil {
		return ocispec.Descriptor{}, nil, errUnknown // a blob
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: d, Size: size}, raw, nil
}

// HasManifest implements storage.
func (s *stored) HasManifest(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	_, _, err := s.Manifest(ctx, repo, d)
	if errors.Is(err, errUnknown) {
		return false, nil
	}
	return err == nil, err
}

// PutManifest implements storage.
func (s *stored) PutManifest(ctx context.Context, repo string, m *document, tags []string) (had bool, err error) {
	if had, err = exists(s.s.Path(m.Digest)); err != nil {
		return false, err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
	if err := s.s.PutExpected(ctx, desc, bytes.NewReader(m.raw)); err != nil {
		return had, err
	}
	s.noted.Lock()
	s.types[m.Digest] = m.MediaType
	delete(s.deleted, repo+"@"+m.Digest.String())
	s.noted.Unlock()
	if m.subject != "" {
		if err := s.setReferrers(ctx, repo, m.subject, m.Digest, &m.Descriptor); err != nil {
			return had, err
		}
	}
	if len(tags) == 0 {
		return had, s.s.Sync(ctx)
	}
	for _, t := range tags {
		name, err := refName(repo, t)
		if err != nil {
			return had, err
		}
		if err := s.s.SetRef(ctx, name, desc); err != nil {
			return had, err
		}
	}
	return had, nil
}

// DeleteManifest implements storage: the refs of the repository that point at it
// go; the bytes are the collector's.
func (s *stored) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	_, raw, err := s.Manifest(ctx, repo, d)
	if err != nil {
		return err
	}
	found, err := s.tags(repo)
	if err != nil {
		return err
	}
	for _, r := range found {
		if r.Desc.Digest != d {
			continue
		}
		if err := ignoreNotFound(s.s.DeleteRef(ctx, r.Name)); err != nil {
			return err
		}
	}
	if doc, err := parseDocument("", raw); err == nil && doc.subject != "" {
		if err := s.setReferrers(ctx, repo, doc.subject, d, nil); err != nil {
			return err
		}
	}
	s.noted.Lock()
	defer s.noted.Unlock()
	s.deleted[repo+"@"+d.String()] = true
	return nil
}

// DeleteTag implements storage.
func (s *stored) DeleteTag(ctx context.Context, repo, tag string) error {
	found, err := s.tags(repo)
	if err != nil {
		return err
	}
	r, ok := found[tag]
	if !ok {
		return errUnknown
	}
	return unknownInStore(s.s.DeleteRef(ctx, r.Name))
}

// referrersTag is the tag under which the specification keeps what refers to a
// digest where there is no API for it ("Referrers Tag Schema"): a ref by that
// name keeps it from being collected.
func referrersTag(d digest.Digest) string {
	algo, hex := d.Algorithm().String(), d.Encoded()
	return algo[:min(len(algo), 32)] + "-" + hex[:min(len(hex), 64)]
}

// Referrers implements storage.
func (s *stored) Referrers(ctx context.Context, repo string, d digest.Digest) ([]ocispec.Descriptor, error) {
	desc, err := s.Resolve(ctx, repo, referrersTag(d))
	if errors.Is(err, errUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, raw, err := s.Manifest(ctx, repo, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("reading the referrers of %s: %w", d, err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("reading the referrers of %s: %w", d, err)
	}
	return index.Manifests, nil
}

// setReferrers writes the list of what refers to subject anew, without d and
// with add, if that is not nil.
func (s *stored) setReferrers(ctx context.Context, repo string, subject, d digest.Digest, add *ocispec.Descriptor) error {
	list, err := s.Referrers(ctx, repo, subject)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(l ocispec.Descriptor) bool { return l.Digest == d })
	if add != nil {
		list = append(list, *add)
	}
	name, err := refName(repo, referrersTag(subject))
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return ignoreNotFound(s.s.DeleteRef(ctx, name))
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	desc, err := s.s.Put(ctx, ocispec.MediaTypeImageIndex, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return s.s.SetRef(ctx, name, desc)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

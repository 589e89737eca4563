package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// stored is the content store as a storage. A ref "hello:1.0" is tag 1.0 of the
// repository hello. One with a host, "ghcr.io/o/app:1.0", is found as o/app and as
// ghcr.io/o/app; docker.io/library/debian also as library/debian and as debian.
// When several refs claim a tag, the one whose name is written out wins.
//
// The store has no repositories of its own: what is in it, every repository has.
// Content that no ref reaches lives until the store is closed, as with any
// program that uses it.
type stored struct {
	s *store.Store

	noted sync.Mutex
	types map[digest.Digest]string // of manifests that were pushed and do not say what they are
}

var _ storage = (*stored)(nil)

func newStored(s *store.Store) *stored { return &stored{s: s, types: map[digest.Digest]string{}} }

// Close implements storage. The store is the caller's.
func (s *stored) Close() error { return nil }

// place is one spelling under which a ref is served.
type place struct {
	repo, tag string
	exact     bool // the ref's own name
}

// places lists where a ref is served: nowhere, if its name is no image's.
func places(name string) []place {
	r, err := ref.Parse("docker://" + strings.TrimPrefix(name, "docker://"))
	if err != nil || r.Tag == "" || r.Digest != "" {
		return nil
	}
	own := strings.TrimSuffix(strings.TrimPrefix(name, "docker://"), ":"+r.Tag)
	var out []place
	for _, repo := range []string{own, r.Repo, r.Repository()} {
		p := place{repo: repo, tag: r.Tag, exact: repo == own}
		if ref.CheckRepo(repo) == nil && !slices.ContainsFunc(out, func(o place) bool { return o.repo == repo }) {
			out = append(out, p)
		}
	}
	return out
}

// refName is the name of the ref that a push to a repository sets.
func refName(repo, tag string) (string, error) {
	r, err := ref.ParseTag("docker://" + repo + ":" + tag)
	if err != nil {
		return "", codeNameInvalid.with(err.Error())
	}
	return r.Familiar(), nil
}

// tags maps the tags of a repository to the refs behind them.
func (s *stored) tags(repo string) (map[string]store.Ref, error) {
	refs, err := s.s.Refs()
	if err != nil {
		return nil, err
	}
	found := map[string]store.Ref{}
	exact := map[string]bool{}
	for _, r := range refs {
		for _, p := range places(r.Name) {
			if _, have := found[p.tag]; p.repo == repo && (!have || p.exact && !exact[p.tag]) {
				found[p.tag], exact[p.tag] = r, p.exact
			}
		}
	}
	return found, nil
}

// Repos implements storage: each ref under its own name only, or without the
// host where that holds a port.
func (s *stored) Repos(context.Context) ([]string, error) {
	refs, err := s.s.Refs()
	if err != nil {
		return nil, err
	}
	var repos []string
	for _, r := range refs {
		if p := places(r.Name); len(p) > 0 {
			repos = append(repos, p[0].repo)
		}
	}
	slices.Sort(repos)
	return slices.Compact(repos), nil
}

// HasRepo implements storage.
func (s *stored) HasRepo(_ context.Context, repo string) (bool, error) {
	tags, err := s.tags(repo)
	return len(tags) > 0, err
}

// Tags implements storage.
func (s *stored) Tags(_ context.Context, repo string) ([]string, error) {
	found, err := s.tags(repo)
	if err != nil {
		return nil, err
	}
	var tags []string
	for t := range found {
		tags = append(tags, t)
	}
	return tags, nil
}

// Resolve implements storage.
func (s *stored) Resolve(_ context.Context, repo, tag string) (ocispec.Descriptor, error) {
	if name, err := refName(repo, tag); err == nil { // the common case, without a listing
		desc, err := s.s.GetRef(name)
		if !errors.Is(err, store.ErrNotFound) {
			return desc, err
		}
	}
	found, err := s.tags(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if r, ok := found[tag]; ok {
		return r.Desc, nil
	}
	return ocispec.Descriptor{}, errUnknown
}

func unknownInStore(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return errUnknown
	}
	return err
}

// StatBlob implements storage.
func (s *stored) StatBlob(_ context.Context, _ string, d digest.Digest) (int64, error) {
	n, err := s.s.Stat(d)
	return n, unknownInStore(err)
}

// OpenBlob implements storage.
func (s *stored) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := s.StatBlob(ctx, repo, d); err != nil { // also leases it
		return nil, err
	}
	f, err := os.Open(s.s.Path(d))
	if err != nil {
		return nil, unknown(err)
	}
	return f, nil
}

// MountBlob implements storage.
func (s *stored) MountBlob(ctx context.Context, repo string, d digest.Digest, _ string) error {
	_, err := s.StatBlob(ctx, repo, d)
	return err
}

// DeleteBlob implements storage.
func (s *stored) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	if _, err := s.StatBlob(ctx, repo, d); err != nil {
		return err
	}
	return errUnsupported
}

// Manifest implements storage.
func (s *stored) Manifest(ctx context.Context, _ string, d digest.Digest) (ocispec.Descriptor, []byte, error) {
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
	s.noted.Lock()
	mediaType := s.types[d]
	s.noted.Unlock()
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
func (s *stored) PutManifest(ctx context.Context, repo string, m *document, tags []string) error {
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
	if err := s.s.PutExpected(ctx, desc, strings.NewReader(string(m.raw))); err != nil {
		return err
	}
	s.noted.Lock()
	s.types[m.Digest] = m.MediaType
	s.noted.Unlock()
	if m.subject != "" {
		if err := s.addReferrer(ctx, repo, m); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		return s.s.Sync(ctx)
	}
	for _, t := range tags {
		name, err := refName(repo, t)
		if err != nil {
			return err
		}
		if err := s.s.SetRef(ctx, name, desc); err != nil {
			return err
		}
	}
	return nil
}

// DeleteManifest implements storage: the refs of the repository that point at it
// go; the bytes are the collector's.
func (s *stored) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	found, err := s.tags(repo)
	if err != nil {
		return err
	}
	deleted := false
	for _, r := range found {
		if r.Desc.Digest != d {
			continue
		}
		if err := s.s.DeleteRef(ctx, r.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		deleted = true
	}
	if !deleted {
		return errUnknown
	}
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

func (s *stored) addReferrer(ctx context.Context, repo string, m *document) error {
	list, err := s.Referrers(ctx, repo, m.subject)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == m.Digest })
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: append(list, m.Descriptor)}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	name, err := refName(repo, referrersTag(m.subject))
	if err != nil {
		return err
	}
	desc, err := s.s.Put(ctx, ocispec.MediaTypeImageIndex, strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	return s.s.SetRef(ctx, name, desc)
}

// storedUpload is a blob that arrives in the store. What was written cannot be
// taken back.
type storedUpload struct {
	s  *stored
	in *store.Ingest
}

// NewUpload implements storage.
func (s *stored) NewUpload(ctx context.Context, _ digest.Algorithm) (upload, error) {
	in, err := s.s.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	return &storedUpload{s: s, in: in}, nil
}

func (u *storedUpload) Write(p []byte) (int, error) { return u.in.Write(p) }
func (u *storedUpload) Mark() error                 { return nil }
func (u *storedUpload) Rewind() error               { return errUnsupported }
func (u *storedUpload) Abort()                      { u.in.Abort() }

// Commit implements upload. Bytes under another digest than the store's usual
// one are stored again under that.
func (u *storedUpload) Commit(ctx context.Context, _ string, want digest.Digest) error {
	got, err := u.in.Commit(ctx, "application/octet-stream")
	if err != nil {
		return err
	}
	if got.Digest == want {
		return u.s.s.Sync(ctx)
	}
	if want.Algorithm() == got.Digest.Algorithm() {
		return errMismatch
	}
	rc, err := u.s.s.Open(ctx, got)
	if err != nil {
		return err
	}
	defer rc.Close()
	got.Digest = want
	switch err := u.s.s.PutExpected(ctx, got, rc); {
	case errors.Is(err, store.ErrCorrupt):
		return errMismatch
	case err != nil:
		return err
	}
	return u.s.s.Sync(ctx)
}

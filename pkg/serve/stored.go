package serve

import (
	"context"
	"errors"
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

	noted   sync.Mutex
	types   map[digest.Digest]string // of manifests that were pushed and do not say what they are
	deleted map[string]bool          // REPO@DIGEST: gone for clients; the bytes are the collector's
}

var _ storage = (*stored)(nil)

func newStored(s *store.Store) *stored {
	return &stored{s: s, types: map[digest.Digest]string{}, deleted: map[string]bool{}}
}

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

package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/tags"
)

// parallel is how many tags are read or removed at once.
const parallel = 8

// Staged is one tag of a stage.
type Staged struct {
	Tag      string             `json:"tag"`
	ID       string             `json:"id"`
	Platform platform.Platform  `json:"-"`
	Image    ocispec.Descriptor `json:"image"`            // zero when what the tag points at cannot be read
	Created  time.Time          `json:"created,omitzero"` // zero for what another program has pushed
	Root     ocispec.Descriptor `json:"root"`             // what the tag points at
}

// List lists what is staged in a repository, by tag; id "" is every stage.
func List(ctx context.Context, client *registry.Client, repo ref.Ref, id string) ([]Staged, error) {
	if id != "" {
		if err := CheckID(id); err != nil {
			return nil, err
		}
	}
	all, err := client.Tags(ctx, repo)
	if err != nil {
		return nil, err
	}
	var out []Staged
	for _, t := range all {
		of, p, ok := ParseTag(t)
		if ok && (id == "" || of == id) {
			out = append(out, Staged{Tag: t, ID: of, Platform: p})
		}
	}
	gone := make([]bool, len(out))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range out {
		g.Go(func() error {
			s := &out[i]
			desc, raw, err := client.Original(gctx, repo.WithTag(s.Tag))
			if errors.Is(err, registry.ErrNotFound) {
				gone[i] = true // removed meanwhile
				return nil
			}
			if err != nil {
				return err
			}
			s.Root, s.Image = desc, desc
			if !index.IsIndex(desc.MediaType) {
				return nil
			}
			s.Image = ocispec.Descriptor{}
			idx, err := index.Parse(raw)
			if err != nil {
				return nil //nolint:nilerr // what cannot be read is listed, and removed, all the same
			}
			s.Created = created(idx.Annotations)
			for _, m := range idx.Manifests {
				if !index.IsAttestation(m) {
					s.Image = m
					break
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	kept := out[:0]
	for i, s := range out {
		if !gone[i] {
			kept = append(kept, s)
		}
	}
	slices.SortFunc(kept, func(a, b Staged) int { return strings.Compare(a.Tag, b.Tag) })
	return kept, nil
}

// Remove removes the tags of what is staged, and nothing that they lead to: an index that was made of it stays whole. What
// is gone already is no error.
func Remove(ctx context.Context, client *registry.Client, repo ref.Ref, staged []Staged) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, s := range staged {
		g.Go(func() error {
			err := removeOne(gctx, client, repo, s)
			if err == nil || errors.Is(err, registry.ErrNotFound) {
				return nil
			}
			return fmt.Errorf("removing %s: %w", repo.WithTag(s.Tag), err)
		})
	}
	return g.Wait()
}

func removeOne(ctx context.Context, client *registry.Client, repo ref.Ref, s Staged) error {
	err := client.Delete(ctx, repo.WithTag(s.Tag))
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		return err
	}
	if !s.Created.IsZero() { // a record of ours: no other tag points at it
		return client.Delete(ctx, repo.WithDigest(s.Root.Digest))
	}
	return tags.Delete(ctx, client, repo.WithTag(s.Tag), false)
}

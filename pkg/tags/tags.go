// Package tags changes the tags of a repository without breaking what they stand for: it knows what they reach, and
// deletes one of them and nothing else.
//
// # Invariants
//
//   - Deleting a tag leaves every manifest and every other tag.
//   - A manifest that a tag reaches is deleted only by force.
//   - A registry that cannot delete is left as it was.
package tags

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// The kinds of errors.
var (
	// ErrInUse says that a tag reaches what was to be deleted.
	ErrInUse = errors.New("in use")
	// ErrUnsupported says that the registry does not delete.
	ErrUnsupported = fmt.Errorf("the registry does not delete: %w", errors.ErrUnsupported)
)

// parallel is how many requests are under way at once.
const parallel = 8

// maxNamed is how many tags an error names.
const maxNamed = 10

// Reaching lists the tags of r's repository that point at the manifest d, directly or through indexes, in lexical order.
// A tag that another process deletes meanwhile is left out.
func Reaching(ctx context.Context, client *registry.Client, r ref.Ref, d digest.Digest) ([]string, error) {
	all, err := client.Tags(ctx, r)
	if err != nil {
		return nil, err
	}
	f := finder{client: client, repo: r, want: d, known: map[digest.Digest]*answer{}}
	reaches := make([]bool, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, tag := range all {
		g.Go(func() error {
			desc, err := client.Resolve(gctx, r.WithTag(tag))
			if errors.Is(err, registry.ErrNotFound) {
				return nil
			}
			if err == nil {
				reaches[i], err = f.reaches(gctx, desc, 0)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []string
	for i, tag := range all {
		if reaches[i] {
			out = append(out, tag)
		}
	}
	return out, nil
}

// finder follows indexes, each once.
type finder struct {
	client *registry.Client
	repo   ref.Ref
	want   digest.Digest

	asking sync.Mutex // guards known
	known  map[digest.Digest]*answer
}

type answer struct {
	once sync.Once
	yes  bool
	err  error
}

func (f *finder) reaches(ctx context.Context, desc ocispec.Descriptor, depth int) (bool, error) {
	switch {
	case desc.Digest == f.want:
		return true, nil
	case !index.IsIndex(desc.MediaType):
		return false, nil
	case depth > index.MaxNesting:
		return false, fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, desc.Digest, index.MaxNesting)
	}
	f.asking.Lock()
	a := f.known[desc.Digest]
	if a == nil {
		a = &answer{}
		f.known[desc.Digest] = a
	}
	f.asking.Unlock()
	// An index cannot hold itself: its digest would have to be in what it is the digest of.
	a.once.Do(func() { a.yes, a.err = f.inside(ctx, desc, depth) })
	return a.yes, a.err
}

func (f *finder) inside(ctx context.Context, desc ocispec.Descriptor, depth int) (bool, error) {
	_, raw, err := f.client.Manifest(ctx, f.repo.WithDigest(desc.Digest))
	if errors.Is(err, registry.ErrNotFound) {
		return false, nil // it is broken already
	}
	if err != nil {
		return false, err
	}
	idx, err := index.Parse(raw)
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", source.ErrInvalid, desc.Digest, err)
	}
	for _, m := range idx.Manifests {
		yes, err := f.reaches(ctx, m, depth+1)
		if yes || err != nil {
			return yes, err
		}
	}
	return false, nil
}

// Delete removes what r names: with a digest the manifest, which no tag may reach unless force says so; else the tag and
// nothing else.
func Delete(ctx context.Context, client *registry.Client, r ref.Ref, force bool) error {
	if r.Kind != ref.Registry {
		return fmt.Errorf("%w: %s is no name in a registry", registry.ErrInvalid, r)
	}
	if r.Digest == "" {
		return deleteTag(ctx, client, r)
	}
	r.Tag = ""
	if !force {
		used, err := Reaching(ctx, client, r, r.Digest)
		if err != nil {
			return fmt.Errorf("looking for tags that reach %s: %w", r, err)
		}
		if len(used) > 0 {
			return fmt.Errorf("%s: %w: the tags %s reach it", r, ErrInUse, some(used))
		}
	}
	return explain(r, client.Delete(ctx, r))
}

func some(names []string) string {
	if len(names) > maxNamed {
		return strings.Join(names[:maxNamed], ", ") + fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

// explain says it when the registry can not rather than will not.
func explain(r ref.Ref, err error) error {
	if refuses(err) {
		return fmt.Errorf("%s: %w: %w", r, ErrUnsupported, err)
	}
	return err
}

// refuses reports whether a registry cannot do what was asked of it: 400 and 405 are what the specification has for that.
func refuses(err error) bool {
	var e *registry.Error
	return errors.As(err, &e) && slices.Contains([]int{400, 405, 501}, e.Status)
}

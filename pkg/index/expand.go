package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxNesting is how many indexes may stand in one another (ROBUSTNESS.md b07).
const MaxNesting = 8

// Fetch returns the verified bytes of an index.
type Fetch func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)

// Expand takes an index apart: it returns its entries in order, with everything they say, and in the place of a nested
// index what that leads to. Nested indexes come by fetch. An index or entry that is met twice is listed once.
func Expand(ctx context.Context, raw []byte, fetch Fetch) ([]Entry, error) {
	w := expander{fetch: fetch, seen: map[digest.Digest]bool{}, path: map[digest.Digest]bool{}, entries: map[string]bool{}}
	root := digest.FromBytes(raw)
	w.seen[root], w.path[root] = true, true
	if err := w.add(ctx, raw); err != nil {
		return nil, err
	}
	return w.out, nil
}

type expander struct {
	fetch   Fetch
	out     []Entry
	seen    map[digest.Digest]bool // indexes
	path    map[digest.Digest]bool // indexes from the root to here
	entries map[string]bool        // as written
	count   int
}

func (w *expander) add(ctx context.Context, raw []byte) error {
	idx, err := Parse(raw)
	if err != nil {
		return err
	}
	entries, err := idx.Entries()
	if err != nil {
		return err
	}
	if w.count += len(entries); w.count > MaxDescriptors {
		return fmt.Errorf("%w: it leads to more than %d manifests", ErrInvalid, MaxDescriptors)
	}
	for _, e := range entries {
		if IsIndex(e.MediaType) && !IsAttestation(e.Descriptor) {
			if err := w.nested(ctx, e); err != nil {
				return err
			}
			continue
		}
		if text := string(e.node.Bytes()); !w.entries[text] {
			w.entries[text] = true
			w.out = append(w.out, e)
		}
	}
	return nil
}

func (w *expander) nested(ctx context.Context, e Entry) error {
	switch {
	case w.path[e.Digest]:
		return fmt.Errorf("%w: cycle at %s", ErrInvalid, e.Digest)
	case w.seen[e.Digest]:
		return nil
	case len(w.path) == MaxNesting:
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", ErrInvalid, e.Digest, MaxNesting)
	}
	w.seen[e.Digest], w.path[e.Digest] = true, true
	defer delete(w.path, e.Digest)
	raw, err := w.fetch(ctx, e.Descriptor)
	if err != nil {
		return fmt.Errorf("the nested index %s: %w", e.Digest, err)
	}
	if err := w.add(ctx, raw); err != nil {
		return fmt.Errorf("the nested index %s: %w", e.Digest, err)
	}
	return nil
}

// Flatten puts in the place of nested indexes what they lead to. An image that is then there twice for one platform is ErrDuplicate.
func (x *Editor) Flatten(ctx context.Context, fetch Fetch) error {
	nested := false
	for _, e := range x.entries {
		nested = nested || IsIndex(e.MediaType)
	}
	if !nested {
		return nil
	}
	_, raw, err := x.Finish()
	if err != nil {
		return err
	}
	entries, err := Expand(ctx, raw, fetch)
	if err != nil {
		return err
	}
	before := x.entries
	x.entries = nil
	for _, e := range entries {
		if err := x.Add(e, false); err != nil {
			x.entries = before
			return fmt.Errorf("flattening: %w", errors.Join(err, x.store()))
		}
	}
	return x.store()
}

package solve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// Records is the step cache in a store.
type Records struct{ Store *store.Store }

var (
	_ Cache    = Records{}
	_ Prefixes = Records{}
)

// RecordKind is the kind of the store's records that hold step records.
const RecordKind = "cache"

// Get implements Cache.
func (c Records) Get(_ context.Context, key digest.Digest) (Record, bool) {
	stored, err := c.Store.GetRecord(RecordKind, key.Encoded())
	if err != nil {
		return Record{}, false
	}
	var r Record
	if json.Unmarshal(stored.Data, &r) != nil {
		return Record{}, false
	}
	for l := range r.All() {
		if _, err := c.Store.Stat(l.Kept()); err != nil { // also leases it
			return Record{}, false
		}
	}
	return r, true
}

// Put implements Cache.
func (c Records) Put(_ context.Context, key digest.Digest, r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("recording a step: %w", err)
	}
	stored := store.Record{Data: data}
	for l := range r.All() {
		stored.Blobs = append(stored.Blobs, l.Kept())
	}
	return c.Store.PutRecord(RecordKind, key.Encoded(), stored)
}

// PrefixKind is the kind of the store's records that say which prefixes keys have had.
const PrefixKind = "prefix"

// Seen implements Prefixes.
func (c Records) Seen(_ context.Context, prefix digest.Digest) bool {
	_, err := c.Store.GetRecord(PrefixKind, prefix.Encoded())
	return !errors.Is(err, store.ErrNotFound)
}

// See implements Prefixes.
func (c Records) See(ctx context.Context, prefix digest.Digest) error {
	if c.Seen(ctx, prefix) {
		return nil
	}
	return c.Store.PutRecord(PrefixKind, prefix.Encoded(), store.Record{})
}

// All are the layers of all outputs, in a fixed order.
func (r Record) All() iter.Seq[*Layer] {
	return func(yield func(*Layer) bool) {
		for i := range r.Layers {
			if !yield(&r.Layers[i]) {
				return
			}
		}
		for _, i := range slices.Sorted(maps.Keys(r.More)) {
			for j := range r.More[i] {
				if !yield(&r.More[i][j]) {
					return
				}
			}
		}
	}
}

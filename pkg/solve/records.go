package solve

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// Records is the step cache in a store.
type Records struct{ Store *store.Store }

var _ Cache = Records{}

const recordKind = "cache"

// Get implements Cache.
func (c Records) Get(_ context.Context, key digest.Digest) ([]Layer, bool) {
	r, err := c.Store.GetRecord(recordKind, key.Encoded())
	if err != nil {
		return nil, false
	}
	var layers []Layer
	if json.Unmarshal(r.Data, &layers) != nil {
		return nil, false
	}
	for _, l := range layers {
		if _, err := c.Store.Stat(l.DiffID); err != nil { // also leases it
			return nil, false
		}
	}
	return layers, true
}

// Put implements Cache.
func (c Records) Put(_ context.Context, key digest.Digest, layers []Layer) error {
	data, err := json.Marshal(layers)
	if err != nil {
		return fmt.Errorf("recording a step: %w", err)
	}
	r := store.Record{Data: data}
	for _, l := range layers {
		r.Blobs = append(r.Blobs, l.DiffID)
	}
	return c.Store.PutRecord(recordKind, key.Encoded(), r)
}

package facts

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The kinds of records. version is part of what a record of facts says: an older one is read anew.
const (
	tocKind   = "toc" // the same records that builds use
	factsKind = "facts"
	blobKind  = "unpacked"

	version = 1
)

// Cache keeps tables of contents and facts by diffID, and the diffIDs of compressed layers by their digests. Everything in it
// was read here. A nil Store keeps nothing.
type Cache struct {
	Store *store.Store
}

type record struct {
	Version int `json:"version"`
	*Layer
}

// Get returns what is known of an uncompressed layer.
func (c Cache) Get(diffID digest.Digest) (*layer.TOC, *Layer, bool) {
	if c.Store == nil || diffID.Validate() != nil {
		return nil, nil, false
	}
	r, err := c.Store.GetRecord(factsKind, diffID.Encoded())
	if err != nil {
		return nil, nil, false
	}
	var rec record
	if json.Unmarshal(r.Data, &rec) != nil || rec.Version != version || rec.Layer == nil || rec.DiffID != diffID {
		return nil, nil, false
	}
	toc, ok := c.TOC(diffID)
	if !ok {
		return nil, nil, false
	}
	return toc, rec.Layer, true
}

// TOC returns the table of contents of an uncompressed layer.
func (c Cache) TOC(diffID digest.Digest) (*layer.TOC, bool) {
	if c.Store == nil || diffID.Validate() != nil {
		return nil, false
	}
	r, err := c.Store.GetRecord(tocKind, diffID.Encoded())
	if err != nil {
		return nil, false
	}
	toc, err := layer.UnpackTOC(r.Data)
	return toc, err == nil && toc.DiffID == diffID
}

// PutTOC keeps a table of contents.
func (c Cache) PutTOC(toc *layer.TOC) error {
	if c.Store == nil {
		return nil
	}
	data, err := toc.Pack()
	if err != nil {
		return fmt.Errorf("encoding the table of contents of %s: %w", toc.DiffID, err)
	}
	return c.Store.PutRecord(tocKind, toc.DiffID.Encoded(), store.Record{Data: data})
}

// Put keeps what was read of a layer.
func (c Cache) Put(toc *layer.TOC, facts *Layer) error {
	if c.Store == nil {
		return nil
	}
	if err := c.PutTOC(toc); err != nil {
		return err
	}
	return c.PutFacts(facts)
}

// PutFacts keeps facts whose table of contents is kept elsewhere.
func (c Cache) PutFacts(facts *Layer) error {
	if c.Store == nil {
		return nil
	}
	data, err := json.Marshal(record{version, facts})
	if err != nil {
		return fmt.Errorf("encoding the facts of %s: %w", facts.DiffID, err)
	}
	return c.Store.PutRecord(factsKind, facts.DiffID.Encoded(), store.Record{Data: data})
}

// Unpacked returns the diffID of a compressed layer that was read to its end here.
func (c Cache) Unpacked(blob digest.Digest) (digest.Digest, bool) {
	if c.Store == nil || blob.Validate() != nil {
		return "", false
	}
	r, err := c.Store.GetRecord(blobKind, blob.Encoded())
	if err != nil {
		return "", false
	}
	d := digest.Digest(r.Data)
	return d, d.Validate() == nil
}

// PutUnpacked keeps the diffID of a compressed layer.
func (c Cache) PutUnpacked(blob, diffID digest.Digest) error {
	if c.Store == nil {
		return nil
	}
	return c.Store.PutRecord(blobKind, blob.Encoded(), store.Record{Data: []byte(diffID)})
}

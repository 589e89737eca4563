package store

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// originKind is the kind of the records that say where else the content of a manifest lies. They are no cache: such
// a record lives as long as something reaches its manifest, and the store does not miss that manifest's blobs.
const originKind = "origins"

// maxOrigins is how many places are remembered for one manifest: the latest.
const maxOrigins = 16

// AddOrigin remembers that all that the manifest d refers to can also be had from these places. What a place is
// written like is the caller's business. The latest comes first. It is durable.
func (s *Store) AddOrigin(ctx context.Context, d digest.Digest, places ...string) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	if err := s.writable(); err != nil {
		return err
	}
	unlock, err := s.lockPath(ctx, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	have, err := s.Origins(d)
	if err != nil {
		return err
	}
	all := slices.Clone(places)
	for _, p := range have {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if len(all) > maxOrigins {
		all = all[:maxOrigins]
	}
	if slices.Equal(all, have) {
		return nil
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return s.putRecord(originKind, d.String(), Record{Data: data}, true)
}

// Origins returns the places that AddOrigin was told, none when there are none.
func (s *Store) Origins(d digest.Digest) ([]string, error) {
	r, err := s.GetRecord(originKind, d.String())
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var places []string
	if json.Unmarshal(r.Data, &places) != nil {
		return nil, nil // of a later version
	}
	return places, nil
}

// originOf tells the records of origins, by their path: of which manifest?
func originOf(path string) (digest.Digest, bool) {
	if filepath.Base(filepath.Dir(path)) != originKind {
		return "", false
	}
	name, ok := unescape(strings.TrimSuffix(filepath.Base(path), recordSuffix))
	d := digest.Digest(name)
	return d, ok && checkDigest(d) == nil
}

package build

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// CacheEntry is something in the store that makes the next build faster.
type CacheEntry struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`               // see cacheTypes
	Name     string    `json:"name,omitempty"`     // the step, as its author wrote it
	Platform string    `json:"platform,omitempty"` // "" when it is the same for all
	Size     int64     `json:"size"`               // bytes, with the blobs that it keeps; entries may share these
	LastUsed time.Time `json:"lastUsed"`
}

// cacheTypes are the words for kinds of entries.
var cacheTypes = map[string]string{
	solve.RecordKind:     "step",
	solve.PrefixKind:     "kind of step",
	local.CompressedKind: "compressed layer",
	store.KindSnapshot:   "unpacked layer",
	store.KindCacheMount: "cache mount",
	"toc":                "table of contents",
}

// CacheEntries lists the cache, the least recently used first, and what takes room in the store.
func CacheEntries(ctx context.Context, st *store.Store) ([]CacheEntry, store.Usage, error) {
	usage, err := st.Usage(ctx)
	if err != nil {
		return nil, usage, err
	}
	out := make([]CacheEntry, 0, len(usage.Entries))
	for _, e := range usage.Entries {
		c := CacheEntry{ID: e.Key, Type: cacheTypes[e.Kind], Size: e.Size, LastUsed: e.LastUsed.UTC()}
		if c.Type == "" {
			c.Type = e.Kind
		}
		for _, d := range e.Blobs {
			c.Size += st.Size(d)
		}
		if e.Kind == solve.RecordKind {
			var r solve.Record
			if stored, err := st.PeekRecord(e.Kind, e.Key); err == nil && json.Unmarshal(stored.Data, &r) == nil {
				c.Name, c.Platform = r.Name, r.Platform
			}
		}
		out = append(out, c)
	}
	return out, usage, nil
}

// Trim keeps the store below keep bytes after a task that added grown; see [store.Store.Trim].
func Trim(ctx context.Context, st *store.Store, keep, grown int64, o Options) (store.GCReport, error) {
	remove, done := o.remover(ctx)
	r, err := st.Trim(ctx, keep, grown, remove)
	return r, done(err)
}

package buildkit

import (
	"context"
	"time"

	"github.com/moby/buildkit/client"
)

// Record is something that a node keeps: a layer, a context, a cache mount.
type Record struct {
	ID          string    `json:"id"`
	Type        string    `json:"type"` // regular, source.local, source.git.checkout, exec.cachemount, frontend, internal
	Description string    `json:"description"`
	Size        int64     `json:"size"` // bytes
	InUse       bool      `json:"inUse"`
	Mutable     bool      `json:"mutable"`
	Shared      bool      `json:"shared"`
	Created     time.Time `json:"created"`
	LastUsed    time.Time `json:"lastUsed,omitzero"` // zero is never
	Uses        int       `json:"uses"`
}

func record(u client.UsageInfo) Record {
	r := Record{
		ID: u.ID, Type: string(u.RecordType), Description: u.Description, Size: u.Size,
		InUse: u.InUse, Mutable: u.Mutable, Shared: u.Shared, Created: u.CreatedAt, Uses: u.UsageCount,
	}
	if u.LastUsedAt != nil {
		r.LastUsed = *u.LastUsedAt
	}
	return r
}

// PruneOptions say what a node is to keep. The zero value drops all that is not in use, but what BuildKit keeps for itself.
type PruneOptions struct {
	All           bool          // that, too
	Filter        []string      // in BuildKit's syntax; of several one must hold
	KeepDuration  time.Duration // what was used since stays
	ReservedSpace int64         // bytes that always stay
	MaxUsedSpace  int64         // bytes: drop until no more are used; 0 is no bound
	MinFreeSpace  int64         // bytes: drop until so many are free on the disk
}

// Records lists what the node keeps, the largest last. filter is in BuildKit's syntax, age what was not used for so long.
func (n *Node) Records(ctx context.Context, filter []string, age time.Duration) ([]Record, error) {
	list, err := n.client.DiskUsage(ctx, client.WithFilter(filter), client.WithAgeLimit(age))
	if err != nil {
		return nil, n.unreachable(ctx, err)
	}
	out := make([]Record, len(list))
	for i, u := range list {
		out[i] = record(*u)
	}
	return out, nil
}

// Prune drops what the options do not keep, and tells of each.
func (n *Node) Prune(ctx context.Context, o PruneOptions, dropped func(Record)) error {
	opts := []client.PruneOption{client.WithFilter(o.Filter), client.WithKeepOpt(o.KeepDuration, o.ReservedSpace, o.MaxUsedSpace, o.MinFreeSpace)}
	if o.All {
		opts = append(opts, client.PruneAll)
	}
	ch := make(chan client.UsageInfo)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range ch {
			dropped(record(u))
		}
	}()
	err := n.client.Prune(ctx, ch, opts...)
	close(ch)
	<-told
	if err != nil {
		return n.unreachable(ctx, err)
	}
	return nil
}

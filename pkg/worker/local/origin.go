package local

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// Origin is what the place that a source comes from says of it.
type Origin struct {
	Commit       string        // of git: hex
	Object       []byte        // of git: the commit as git keeps it
	Digest       digest.Digest // of http: of the file
	LastModified *time.Time    // of http; nil when the server does not say
}

// Origin asks where a source comes from, and brings what it names: whoever solves it next has it. Of sources other than git
// and http nothing is known.
func (w *Worker) Origin(ctx context.Context, op graph.Op) (Origin, error) {
	switch op := op.(type) {
	case graph.Git:
		got, err := w.commitOf(ctx, op)
		if err != nil {
			return Origin{}, fmt.Errorf("looking at %s: %w", op.Remote, err)
		}
		return Origin{Commit: got.Commit, Object: got.Object}, nil
	case graph.HTTP:
		got, err := w.download(ctx, op)
		if err != nil {
			return Origin{}, err
		}
		out := Origin{Digest: got.Sum}
		if t, err := http.ParseTime(got.LastModified); err == nil {
			out.LastModified = &t
		}
		return out, nil
	}
	return Origin{}, nil
}

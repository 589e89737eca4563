package solve_test

import (
	"context"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// prefixed is a fake whose keys are made of content that changes, and which notes whether a key was asked for before the work.
type prefixed struct {
	fake
	content string

	mu    sync.Mutex // guards order
	order []string
}

func (p *prefixed) did(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = append(p.order, what)
}

func (p *prefixed) Prefix(_ context.Context, _ *graph.Vertex, inputs []solve.Result) (digest.Digest, error) {
	return inputs[0].Identity(), nil
}

func (p *prefixed) Key(context.Context, *graph.Vertex, []solve.Result) (digest.Digest, error) {
	p.did("key")
	return digest.FromString(p.content), nil
}

func (p *prefixed) Run(ctx context.Context, v *graph.Vertex, inputs []solve.Result) (solve.Result, error) {
	p.did("run")
	r, err := p.fake.Run(ctx, v, inputs)
	r.Layers[len(r.Layers)-1].DiffID = digest.FromString(p.content)
	return r, err
}

// knowing is a memory that knows prefixes.
type knowing struct {
	memory
	seen map[digest.Digest]bool
}

func (k *knowing) Seen(_ context.Context, d digest.Digest) bool { return k.seen[d] }

func (k *knowing) See(_ context.Context, d digest.Digest) error {
	k.seen[d] = true
	return nil
}

func TestAStepThatWasNeverSeenIsRunBeforeItsKey(t *testing.T) {
	cache := &knowing{seen: map[digest.Digest]bool{}}
	for _, tc := range []struct {
		name, content string
		options       solve.Options
		want          []string
	}{
		{"never seen", "a", solve.Options{}, []string{"run", "key"}},
		{"again", "a", solve.Options{}, []string{"key"}},
		{"changed", "b", solve.Options{}, []string{"key", "run"}},
		{"changed back", "a", solve.Options{}, []string{"key"}},
		{"without the cache", "a", solve.Options{NoCache: true}, []string{"run", "key"}},
	} {
		w := &prefixed{content: tc.content}
		got, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{files("copy", nil)}, tc.options)
		require.NoError(t, err, tc.name)
		assert.Equal(t, tc.want, w.order, tc.name)
		assert.Equal(t, digest.FromString(tc.content), got[0].Layers[0].DiffID, tc.name)
	}
	w := &prefixed{content: "a"}
	_, err := solve.Solve(t.Context(), w, &memory{}, []*graph.Vertex{files("copy", nil)}, solve.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"key", "run"}, w.order, "a cache that does not know prefixes is asked")
}

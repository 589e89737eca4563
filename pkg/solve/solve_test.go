package solve_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// fake is a worker whose layers are named after what made them.
type fake struct {
	mu   sync.Mutex // guards ran
	ran  map[string]int
	run  func(ctx context.Context, name string) error
	more func(inputs []solve.Result) map[int]solve.Result
	busy atomic.Int32
	most atomic.Int32
}

var _ solve.Worker = (*fake)(nil)

func (f *fake) Key(_ context.Context, v *graph.Vertex, inputs []solve.Result) (digest.Digest, error) {
	if _, ok := v.Op.(graph.Image); ok {
		return "", nil
	}
	return inputs[0].Identity(), nil
}

func (f *fake) Run(ctx context.Context, v *graph.Vertex, inputs []solve.Result) (solve.Result, error) {
	now := f.busy.Add(1)
	defer f.busy.Add(-1)
	for m := f.most.Load(); now > m && !f.most.CompareAndSwap(m, now); m = f.most.Load() {
	}
	f.mu.Lock()
	if f.ran == nil {
		f.ran = map[string]int{}
	}
	f.ran[v.Meta.Name]++
	f.mu.Unlock()
	if f.run != nil {
		if err := f.run(ctx, v.Meta.Name); err != nil {
			return solve.Result{}, err
		}
	}
	if _, ok := v.Op.(graph.Image); ok {
		return solve.Result{Config: []byte(v.Platform.String())}, nil
	}
	r := inputs[0].With(solve.Layer{DiffID: digest.FromString(v.Meta.Name)})
	if f.more != nil && len(inputs) > 1 {
		r.More = f.more(inputs)
	}
	return r, nil
}

// memory is a cache in a map.
type memory struct {
	mu      sync.Mutex // guards records
	records map[digest.Digest]solve.Record
}

func (m *memory) Get(_ context.Context, key digest.Digest) (solve.Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.records[key]
	return l, ok
}

func (m *memory) Put(_ context.Context, key digest.Digest, rec solve.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[digest.Digest]solve.Record{}
	}
	m.records[key] = rec
	return nil
}

var amd64, arm64 = platform.Platform{OS: "linux", Arch: "amd64"}, platform.Platform{OS: "linux", Arch: "arm64"}

func run(name string, p platform.Platform, inputs ...*graph.Vertex) *graph.Vertex {
	return graph.New(graph.Exec{Args: []string{name}}, p, graph.Meta{Name: name, Source: "rootfs.yaml:1", History: "RUN " + name}, inputs...)
}

func files(name string, inputs ...*graph.Vertex) *graph.Vertex {
	return graph.New(graph.Layer{Entries: []graph.Entry{{Path: name}}}, platform.Platform{}, graph.Meta{Name: name, Source: "rootfs.yaml:2"}, inputs...)
}

func TestEqualVerticesRunOnce(t *testing.T) {
	w := &fake{}
	shared := func() *graph.Vertex { return files("shared", nil) }
	got, err := solve.Solve(t.Context(), w, &memory{}, []*graph.Vertex{
		run("a", amd64, shared()), run("b", arm64, shared()), shared(), nil,
	}, solve.Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"shared": 1, "a": 1, "b": 1}, w.ran)
	assert.Len(t, got[0].Layers, 2)
	assert.Equal(t, "RUN a", got[0].Layers[1].History.CreatedBy)
	assert.Equal(t, solve.Result{}, got[3], "no root is scratch")
}

func TestSecondSolveRunsNothing(t *testing.T) {
	cache := &memory{}
	roots := []*graph.Vertex{run("b", amd64, run("a", amd64, nil))}
	first, err := solve.Solve(t.Context(), &fake{}, cache, roots, solve.Options{})
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		options solve.Options
		want    int
	}{
		"cached":   {want: 0},
		"no cache": {options: solve.Options{NoCache: true}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := &fake{}
			var cached int
			tc.options.Events = event.Serial(func(e event.Event) {
				if e.Kind == event.VertexDone && e.Cached {
					cached++
				}
			})
			again, err := solve.Solve(t.Context(), w, cache, roots, tc.options)
			require.NoError(t, err)
			assert.Equal(t, first, again)
			assert.Len(t, w.ran, tc.want)
			assert.Equal(t, 2-tc.want, cached)
		})
	}
}

func TestKeyFollowsContentNotName(t *testing.T) {
	cache := &memory{}
	a := graph.New(graph.Exec{Args: []string{"x"}}, amd64, graph.Meta{Name: "one", Source: "a:1"}, nil)
	b := graph.New(graph.Exec{Args: []string{"x"}}, amd64, graph.Meta{Name: "two", Source: "b:2"}, nil)
	_, err := solve.Solve(t.Context(), &fake{}, cache, []*graph.Vertex{a}, solve.Options{})
	require.NoError(t, err)
	w := &fake{}
	_, err = solve.Solve(t.Context(), w, cache, []*graph.Vertex{b}, solve.Options{})
	require.NoError(t, err)
	assert.Empty(t, w.ran, "names and places are no part of a key")
}

func TestPlatformIsPartOfTheKey(t *testing.T) {
	w := &fake{}
	_, err := solve.Solve(t.Context(), w, &memory{}, []*graph.Vertex{run("x", amd64, nil), run("x", arm64, nil)}, solve.Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, w.ran["x"])
}

var errBroken = errors.New("broken")

func TestFirstFailureIsReportedAlone(t *testing.T) {
	w := &fake{run: func(ctx context.Context, name string) error {
		if name == "bad" {
			return errBroken
		}
		<-ctx.Done() // a long step: ends only because the other failed
		return context.Cause(ctx)
	}}
	_, err := solve.Solve(t.Context(), w, &memory{}, []*graph.Vertex{run("long", amd64, nil), run("bad", arm64, nil)}, solve.Options{Parallel: 2})
	var step *solve.StepError
	require.ErrorAs(t, err, &step)
	assert.ErrorIs(t, err, errBroken)
	assert.Equal(t, arm64, step.Platform)
	assert.Equal(t, "rootfs.yaml:1: [linux/arm64] bad: broken", err.Error())
}

func TestKeepGoingFinishesTheRest(t *testing.T) {
	cache := &memory{}
	w := &fake{run: func(_ context.Context, name string) error {
		if name == "bad" {
			return errBroken
		}
		return nil
	}}
	bad := run("bad", amd64, nil)
	got, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{
		run("after", amd64, bad), run("other", amd64, bad), run("good", arm64, nil),
	}, solve.Options{KeepGoing: true})
	require.ErrorIs(t, err, errBroken)
	var step *solve.StepError
	require.ErrorAs(t, err, &step, "one failure is not joined twice")
	assert.Equal(t, map[string]int{"bad": 1, "good": 1}, w.ran)
	assert.Len(t, got[2].Layers, 1)
	assert.Len(t, cache.records, 1, "what was finished is kept")
}

func TestCancelGivesTheCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	w := &fake{run: func(ctx context.Context, _ string) error {
		cancel(interrupted)
		<-ctx.Done()
		return ctx.Err()
	}}
	_, err := solve.Solve(ctx, w, &memory{}, []*graph.Vertex{run("a", amd64, nil)}, solve.Options{})
	assert.ErrorIs(t, err, interrupted)
}

func TestParallelIsBounded(t *testing.T) {
	w := &fake{run: func(context.Context, string) error { time.Sleep(2 * time.Millisecond); return nil }}
	var roots []*graph.Vertex
	for i := range 20 {
		roots = append(roots, run(fmt.Sprint(i), amd64, files(fmt.Sprint("f", i), nil)))
	}
	_, err := solve.Solve(t.Context(), w, &memory{}, roots, solve.Options{Parallel: 3})
	require.NoError(t, err)
	assert.LessOrEqual(t, w.most.Load(), int32(3))
}

func TestOutputsOfAStep(t *testing.T) {
	step := graph.New(graph.Exec{Args: []string{"x"}, Mounts: []graph.Mount{
		{Type: graph.MountBind, Target: "/in", Input: 1, Writable: true, Output: 1},
		{Type: graph.MountBind, Target: "/out", Writable: true, Output: 2},
	}}, amd64, graph.Meta{Name: "x", Source: "llb"}, nil, files("in", nil))
	pick := func(i int) *graph.Vertex {
		return graph.New(graph.Output{Index: i}, amd64, graph.Meta{Name: "out", Source: "llb"}, step)
	}
	cache := &memory{}
	w := &fake{more: func(inputs []solve.Result) map[int]solve.Result {
		return map[int]solve.Result{
			1: inputs[1].With(solve.Layer{DiffID: digest.FromString("one")}),
			2: solve.Result{}.With(solve.Layer{DiffID: digest.FromString("two")}),
		}
	}}
	for _, want := range []int{1, 1} { // the second time from the records
		got, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{pick(1), pick(2), step}, solve.Options{})
		require.NoError(t, err)
		require.Len(t, got[0].Layers, 2, "the input and the change")
		assert.Equal(t, digest.FromString("one"), got[0].Layers[1].DiffID)
		require.Len(t, got[1].Layers, 1)
		assert.Equal(t, digest.FromString("two"), got[1].Layers[0].DiffID)
		assert.Len(t, got[2].Layers, 1)
		assert.Equal(t, want, w.ran["x"])
	}
	_, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{pick(3)}, solve.Options{})
	assert.ErrorIs(t, err, solve.ErrStep)
}

func TestVertexThatIsNotCached(t *testing.T) {
	cache, w := &memory{}, &fake{}
	v := graph.New(graph.Exec{Args: []string{"x"}}, amd64, graph.Meta{Name: "x", Source: "a:1", NoCache: true}, nil)
	for range 2 {
		_, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{v}, solve.Options{})
		require.NoError(t, err)
	}
	assert.Equal(t, 2, w.ran["x"])
	_, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{run("x", amd64, nil)}, solve.Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, w.ran["x"], "what it made was recorded")
}

func TestCachesAndProxiesAreInNoKey(t *testing.T) {
	step := func(id, proxy string) *graph.Vertex {
		return graph.New(graph.Exec{
			Args: []string{"x"}, Proxy: &graph.Proxy{HTTP: proxy},
			Mounts: []graph.Mount{{Type: graph.MountSecret, ID: "s", Target: "/s"}, {Type: graph.MountCache, ID: id, Target: "/c"}},
		}, amd64, graph.Meta{Name: "x", Source: "a:1"}, nil)
	}
	require.NotEqual(t, step("a", "").Digest(), step("b", "").Digest(), "side by side they are different work")
	cache, w := &memory{}, &fake{}
	for _, v := range []*graph.Vertex{step("a", ""), step("b", ""), step("b", "http://proxy")} {
		_, err := solve.Solve(t.Context(), w, cache, []*graph.Vertex{v}, solve.Options{})
		require.NoError(t, err)
	}
	assert.Equal(t, 1, w.ran["x"])
}

// TestTheHeaviestChainGoesFirst solves with one slot. Which vertex takes it first is chance; all others wait by then, because
// work takes time.
func TestTheHeaviestChainGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		w := &fake{run: func(_ context.Context, name string) error {
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(time.Second)
			return nil
		}}
		roots := []*graph.Vertex{
			run("short", amd64, nil), run("b", arm64, run("a", arm64, nil)), run("y", amd64, run("x", amd64, nil)),
		}
		weight := func(v *graph.Vertex) int {
			if v.Platform == arm64 {
				return 20
			}
			return 1
		}
		_, err := solve.Solve(t.Context(), w, &memory{}, roots, solve.Options{Parallel: 1, Weight: weight})
		require.NoError(t, err)
		require.Len(t, order, 5)
		if order[0] == "a" {
			assert.Equal(t, "x", order[1], "%v", order)
		} else {
			assert.Equal(t, "a", order[1], "%v", order)
		}
	})
}

func TestDoneTellsOfEveryVertex(t *testing.T) {
	cache := &memory{}
	base := graph.New(graph.Image{Ref: "x"}, amd64, graph.Meta{Name: "base"})
	roots := []*graph.Vertex{run("b", amd64, run("a", amd64, base))}
	for range 2 {
		var mu sync.Mutex
		told := map[string]digest.Digest{}
		layers := map[string]int{}
		_, err := solve.Solve(t.Context(), &fake{}, cache, roots, solve.Options{Done: func(v *graph.Vertex, key digest.Digest, r solve.Record, res solve.Result) {
			mu.Lock()
			defer mu.Unlock()
			told[v.Meta.Name], layers[v.Meta.Name] = key, len(r.Layers)
		}})
		require.NoError(t, err)
		assert.Len(t, told, 3)
		assert.Empty(t, told["base"])
		assert.NotEmpty(t, told["a"])
		assert.Equal(t, map[string]int{"base": 0, "a": 1, "b": 1}, layers)
	}
}

// TestVerticesOfOneKeyAreWorkedForOnce: variants of a platform whose steps made equal content go on as one.
func TestVerticesOfOneKeyAreWorkedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fake{run: func(context.Context, string) error { time.Sleep(time.Second); return nil }}
		clock := time.Unix(0, 0)
		var mu sync.Mutex
		now := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			clock = clock.Add(time.Hour)
			return clock
		}
		same := func(p platform.Platform) *graph.Vertex { return files("copy", run("x", p, nil)) }
		got, err := solve.Solve(t.Context(), w, &memory{}, []*graph.Vertex{same(amd64), same(arm64)}, solve.Options{Parallel: 2, Now: now})
		require.NoError(t, err)
		assert.Equal(t, map[string]int{"x": 2, "copy": 1}, w.ran)
		assert.Equal(t, got[0].Layers[1].Created, got[1].Layers[1].Created)
	})
}

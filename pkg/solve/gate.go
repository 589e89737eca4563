package solve

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
)

// gate lets so many holders in at once. Of those who wait the one with the highest priority goes first, of equals the one
// who waits longest.
type gate struct {
	mu      sync.Mutex // guards what follows
	free    int
	waiting waiters
	arrived int
}

func newGate(n int) *gate { return &gate{free: n} }

// waiter is somebody at the gate; in is closed when it is let in.
type waiter struct {
	priority, arrival int
	in                chan struct{}
	at                int // in the heap; -1: it is not there any more
}

// enter waits for its turn, or for the end of ctx. Whoever entered leaves.
func (g *gate) enter(ctx context.Context, priority int) error {
	g.mu.Lock()
	if g.free > 0 && len(g.waiting) == 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	w := &waiter{priority: priority, arrival: g.arrived, in: make(chan struct{})}
	g.arrived++
	heap.Push(&g.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.at >= 0 {
		heap.Remove(&g.waiting, w.at)
	} else {
		g.next() // it was let in just now
	}
	return context.Cause(ctx)
}

// leave lets the next one in.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next()
}

// next hands a place on. g.mu is held.
func (g *gate) next() {
	if len(g.waiting) == 0 {
		g.free++
		return
	}
	w, ok := heap.Pop(&g.waiting).(*waiter)
	if ok {
		close(w.in)
	}
}

// waiters is a heap: the next one to be let in is its first.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }

func (w waiters) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(w[j].priority, w[i].priority), cmp.Compare(w[i].arrival, w[j].arrival)) < 0
}

func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].at, w[j].at = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	if one, ok := x.(*waiter); ok {
		one.at = len(*w)
		*w = append(*w, one)
	}
}

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	last.at = -1
	return last
}

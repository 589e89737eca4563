package local

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestAway: while a step has the root nobody reads, and who holds the root for reading is waited for.
func TestAway(t *testing.T) {
	assert.NotPanics(t, func() { (&Worker{}).Reading()() }, "other steps take nothing away")
	w := &Worker{root: &sync.RWMutex{}}
	done := w.Reading() // the vertex of the step
	other := w.Reading()
	var mu sync.Mutex
	var order []string
	say := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
	var wait sync.WaitGroup
	wait.Go(func() {
		a := away{w.root}
		a.Lock()
		say("step begins")
		wait.Go(func() {
			defer w.Reading()()
			say("somebody reads")
		})
		time.Sleep(10 * time.Millisecond) // whoever could read would have
		say("step ends")
		a.Unlock()
		done()
	})
	time.Sleep(10 * time.Millisecond)
	say("the other is done")
	other()
	wait.Wait()
	assert.Equal(t, []string{"the other is done", "step begins", "step ends", "somebody reads"}, order)
}

package local

import "sync"

// away is held while a step in place has moved this machine's own files aside. Who takes it holds the root for reading, as every vertex
// does, and has that again afterwards.
type away struct{ root *sync.RWMutex }

// Lock waits until nobody else reads files of this machine.
func (a away) Lock() {
	a.root.RUnlock()
	a.root.Lock()
}

// Unlock lets the others go on.
func (a away) Unlock() {
	a.root.Unlock()
	a.root.RLock()
}

// Reading keeps steps from taking files of this machine away until the returned function is called.
func (w *Worker) Reading() func() {
	if w.root == nil {
		return func() {}
	}
	w.root.RLock()
	return w.root.RUnlock
}

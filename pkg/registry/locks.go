package registry

import (
	"context"
	"sync"
)

// keyedLocks is one lock for each name, as long as somebody uses it.
type keyedLocks struct {
	table sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{} // holds one value while the lock is held
	users int
}

// lock waits for the lock of a name until ctx ends.
func (k *keyedLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.table.Lock()
	l := k.locks[name]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		if k.locks == nil {
			k.locks = map[string]*keyedLock{}
		}
		k.locks[name] = l
	}
	l.users++
	k.table.Unlock()

	leave := func() {
		k.table.Lock()
		defer k.table.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

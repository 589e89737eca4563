package serve

import "sync"

// keyedLocks make changes of one thing one at a time: of one repository's manifests
// and tags, of one digest.
type keyedLocks struct {
	table sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	sync.Mutex
	users int
}

// lock waits for the lock of a key and returns what releases it.
func (l *keyedLocks) lock(key string) (unlock func()) {
	l.table.Lock()
	rl := l.locks[key]
	if rl == nil {
		rl = &keyedLock{}
		if l.locks == nil {
			l.locks = map[string]*keyedLock{}
		}
		l.locks[key] = rl
	}
	rl.users++
	l.table.Unlock()
	rl.Lock()
	return func() {
		rl.Unlock()
		l.table.Lock()
		defer l.table.Unlock()
		if rl.users--; rl.users == 0 {
			delete(l.locks, key)
		}
	}
}

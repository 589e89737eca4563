package serve

import "sync"

// repoLocks makes changes of one repository's manifests and tags one at a time.
type repoLocks struct {
	table sync.Mutex
	locks map[string]*repoLock
}

type repoLock struct {
	sync.Mutex
	users int
}

// lock waits for the lock of a repository and returns what releases it.
func (l *repoLocks) lock(repo string) (unlock func()) {
	l.table.Lock()
	rl := l.locks[repo]
	if rl == nil {
		rl = &repoLock{}
		if l.locks == nil {
			l.locks = map[string]*repoLock{}
		}
		l.locks[repo] = rl
	}
	rl.users++
	l.table.Unlock()
	rl.Lock()
	return func() {
		rl.Unlock()
		l.table.Lock()
		defer l.table.Unlock()
		if rl.users--; rl.users == 0 {
			delete(l.locks, repo)
		}
	}
}

package serve

import (
	"os"
	"sync"
	"time"
)

// watchEvery is how often files are looked at, at most.
const watchEvery = time.Second

// watched tells when files have changed. It costs a look at the clock, and a stat
// of each now and then.
type watched struct {
	names []string

	mu   sync.Mutex
	next time.Time
	seen []os.FileInfo
}

// changed reports whether a file is another one than at the last call; the first
// call only looks.
func (w *watched) changed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now() //nolint:forbidigo // no output depends on it
	if now.Before(w.next) {
		return false
	}
	w.next = now.Add(watchEvery)
	seen := make([]os.FileInfo, len(w.names))
	different := false
	for i, name := range w.names {
		fi, err := os.Stat(name)
		if err != nil {
			if w.seen != nil { // being replaced: what was read stays
				seen[i] = w.seen[i]
			}
			continue
		}
		seen[i] = fi
		if w.seen != nil && !sameFile(w.seen[i], fi) {
			different = true
		}
	}
	w.seen = seen
	return different
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

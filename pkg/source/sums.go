package source

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"
)

// fileStat is what tells that a file changed.
type fileStat struct {
	Size  int64  `json:"s"`
	Mtime int64  `json:"m"` // nanoseconds
	Ctime int64  `json:"c"`
	Inode uint64 `json:"i"`
}

type fileID struct{ dev, ino uint64 }

// Sums remembers digests of files of one directory from build to build, by what stat says of them. It is safe for
// concurrent use.
type Sums struct {
	mu    sync.Mutex // guards what follows
	known map[string]knownSum
	seen  map[string]knownSum // used or made by this build
	dirty bool
}

type knownSum struct {
	fileStat
	Sum string `json:"h"` // hex
}

// racy is how long before now a file must have been left alone for its digest to be remembered: a change within the
// same tick of the file system's clock could not be told.
const racy = 100 * time.Millisecond

// LoadSums reads what Save wrote; nothing or nonsense is nothing.
func LoadSums(data []byte) *Sums {
	s := &Sums{seen: map[string]knownSum{}}
	if json.Unmarshal(data, &s.known) != nil {
		s.known = nil
	}
	return s
}

// Save returns what LoadSums reads; changed is false when there is nothing new.
func (s *Sums) Save() (data []byte, changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil, false, nil
	}
	all := maps.Clone(s.known)
	if all == nil {
		all = map[string]knownSum{}
	}
	maps.Copy(all, s.seen)
	if len(all) > 4*len(s.seen)+1000 { // what is left of files that went
		all = s.seen
	}
	data, err = json.Marshal(all)
	if err != nil {
		return nil, false, fmt.Errorf("saving digests of files: %w", err)
	}
	return data, true, nil
}

func (s *Sums) get(name string, st fileStat) (sum [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.seen[name]
	if !ok {
		k, ok = s.known[name]
	}
	if !ok || k.fileStat != st || st.Ctime == 0 {
		return sum, false
	}
	n, err := hex.Decode(sum[:], []byte(k.Sum))
	if err != nil || n != len(sum) {
		return sum, false
	}
	s.seen[name] = k
	return sum, true
}

func (s *Sums) put(name string, st fileStat, sum [32]byte) {
	last := time.Unix(0, max(st.Mtime, st.Ctime))
	wait := racy
	if st.Mtime%int64(time.Second) == 0 && st.Ctime%int64(time.Second) == 0 {
		wait = 2 * time.Second // a clock of whole seconds
	}
	if st.Ctime == 0 || time.Since(last) < wait {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[name] = knownSum{st, hex.EncodeToString(sum[:])}
	s.dirty = true
}

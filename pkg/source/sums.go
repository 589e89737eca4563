package source

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// fileStat is what tells that a file changed.
type fileStat struct {
	Size  int64
	Mtime int64 // nanoseconds
	Ctime int64
	Inode uint64
}

type fileID struct{ dev, ino uint64 }

// Sums remembers digests of files of one directory from build to build, by what stat says of them. It is safe for
// concurrent use.
type Sums struct {
	mu    sync.Mutex // guards what follows
	known map[string]knownSum
	seen  int // of them, used or made by this build
	dirty bool
}

type knownSum struct {
	fileStat
	sum  [32]byte
	seen bool
}

// racy is how long before now a file must have been left alone for its digest to be remembered: a change within the
// same tick of the file system's clock could not be told.
const racy = 100 * time.Millisecond

// sumsVersion is the first byte of what Save writes; another one is nothing.
const sumsVersion = 1

// LoadSums reads what Save wrote; nothing or nonsense is nothing.
func LoadSums(data []byte) *Sums {
	s := &Sums{}
	if raw, err := layer.Unsqueeze(data); err != nil || !s.decode(raw) {
		s.known = map[string]knownSum{}
	}
	return s
}

// decode reads entries by name: what a name shares with the one before, the rest of it, what stat said less what it said of the one
// before, and the digest.
func (s *Sums) decode(b []byte) bool {
	if len(b) == 0 || b[0] != sumsVersion {
		return false
	}
	b = b[1:]
	varint := func() int64 {
		x, n := binary.Varint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return x
	}
	count := varint()
	if count < 0 || count > int64(len(b)/32) {
		return false
	}
	s.known = make(map[string]knownSum, count)
	var last fileStat
	name := ""
	for range count {
		shared, rest := varint(), varint()
		if shared < 0 || shared > int64(len(name)) || rest < 0 || rest > int64(len(b)) {
			return false
		}
		name = name[:shared] + string(b[:rest])
		b = b[rest:]
		last = fileStat{last.Size + varint(), last.Mtime + varint(), last.Ctime + varint(), last.Inode + uint64(varint())}
		if len(b) < 32 {
			return false
		}
		s.known[name] = knownSum{fileStat: last, sum: [32]byte(b)}
		b = b[32:]
	}
	return len(b) == 0
}

// Save returns what LoadSums reads; changed is false when there is nothing new.
func (s *Sums) Save() (data []byte, changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil, false, nil
	}
	names := slices.Collect(maps.Keys(s.known))
	if len(s.known) > 4*s.seen+1000 { // what is left of files that went
		names = slices.DeleteFunc(names, func(n string) bool { return !s.known[n].seen })
	}
	slices.Sort(names)
	b := make([]byte, 0, 80*len(names)+16)
	b = append(b, sumsVersion)
	b = binary.AppendVarint(b, int64(len(names)))
	var last fileStat
	before := ""
	for _, name := range names {
		shared := 0
		for shared < len(name) && shared < len(before) && name[shared] == before[shared] {
			shared++
		}
		before = name
		b = binary.AppendVarint(binary.AppendVarint(b, int64(shared)), int64(len(name)-shared))
		b = append(b, name[shared:]...)
		k := s.known[name]
		for _, d := range []int64{k.Size - last.Size, k.Mtime - last.Mtime, k.Ctime - last.Ctime, int64(k.Inode - last.Inode)} {
			b = binary.AppendVarint(b, d)
		}
		b = append(b, k.sum[:]...)
		last = k.fileStat
	}
	if data, err = layer.Squeeze(b); err != nil {
		return nil, false, fmt.Errorf("saving digests of files: %w", err)
	}
	return data, true, nil
}

func (s *Sums) get(name string, st fileStat) (sum [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[name]
	if !ok || k.fileStat != st || st.Ctime == 0 {
		return sum, false
	}
	if !k.seen {
		k.seen = true
		s.known[name] = k
		s.seen++
	}
	return k.sum, true
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
	if !s.known[name].seen {
		s.seen++
	}
	s.known[name] = knownSum{st, sum, true}
	s.dirty = true
}

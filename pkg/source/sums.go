package source

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// fileStat is what tells that a file changed.
type fileStat struct {
	Size  int64
	Mtime int64 // nanoseconds
	Ctime int64
	Inode uint64
	Dev   uint64
}

type fileID struct{ dev, ino uint64 }

// Sums remembers digests of files of one directory from build to build, by what stat says of them, and where in layers
// that were made of them their bytes are. It is safe for concurrent use.
type Sums struct {
	// Open gives the uncompressed tar of a layer, an error when it is not at hand. Set before use; nil: none is.
	Open func(diffID digest.Digest) (layer.ReaderAtCloser, error)

	mu    sync.Mutex // guards what follows
	known []knownSum // of earlier builds, by name; names and digests never change
	last  int        // where known was asked last: files are asked for in nearly the same order as they are kept
	fresh map[string]*knownSum
	seen  int // of known, used by this build
	moved bool
	// layers are those that files are in; in of a knownSum counts them from 1.
	layers []digest.Digest
}

type knownSum struct {
	fileStat
	name string
	sum  [32]byte
	seen bool
	in   int32 // the layer that has its bytes; 0: none
	at   int64 // in the layer's tar
}

// racy is how long before now a file must have been left alone for its digest to be remembered: a change within the
// same tick of the file system's clock could not be told.
const racy = 100 * time.Millisecond

// sumsVersion is the first byte of what Save writes; another one is nothing.
const sumsVersion = 3

// LoadSums reads what Save wrote; nothing or nonsense is nothing.
func LoadSums(data []byte) *Sums {
	s := &Sums{fresh: map[string]*knownSum{}}
	if raw, err := layer.Unsqueeze(data); err != nil || !s.decode(raw) {
		s.known = nil
	}
	return s
}

// decode reads layers, and entries by name: what a name shares with the one before, the rest of it, what stat said less what it said
// of the one before, the digest, and which layer has it where, less where the one before is.
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
	layers := varint()
	if layers < 0 || layers > int64(len(b)/32) {
		return false
	}
	for range layers {
		s.layers = append(s.layers, digest.NewDigestFromBytes(digest.SHA256, b[:32]))
		b = b[32:]
	}
	count := varint()
	if count < 0 || count > int64(len(b)/32) {
		return false
	}
	s.known = make([]knownSum, count)
	var last fileStat
	var names arena
	before, at := "", int64(0)
	for i := range s.known {
		shared, rest := varint(), varint()
		if shared < 0 || shared > int64(len(before)) || rest < 0 || rest > int64(len(b)) {
			return false
		}
		name := names.join(before[:shared], b[:rest])
		if i > 0 && name <= before {
			return false
		}
		before = name
		b = b[rest:]
		last = fileStat{last.Size + varint(), last.Mtime + varint(), last.Ctime + varint(), last.Inode + uint64(varint()), last.Dev + uint64(varint())}
		if len(b) < 32 {
			return false
		}
		k := &s.known[i]
		*k = knownSum{fileStat: last, name: name, sum: [32]byte(b)}
		b = b[32:]
		in := varint()
		if in < 0 || in > layers {
			return false
		}
		if k.in = int32(in); in > 0 {
			at += varint()
			k.at = at
		}
	}
	return len(b) == 0
}

// arena makes many short strings of few pieces of memory.
type arena struct{ b strings.Builder }

const arenaPiece = 32 << 10

func (a *arena) join(x string, y []byte) string {
	if a.b.Cap()-a.b.Len() < len(x)+len(y) {
		a.b = strings.Builder{}
		a.b.Grow(max(arenaPiece, len(x)+len(y)))
	}
	from := a.b.Len()
	a.b.WriteString(x)
	a.b.Write(y)
	return a.b.String()[from:]
}

// Save returns what LoadSums reads; changed is false when there is nothing new.
func (s *Sums) Save() (data []byte, changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fresh) == 0 && !s.moved {
		return nil, false, nil
	}
	fresh := make([]*knownSum, 0, len(s.fresh))
	for _, k := range s.fresh {
		fresh = append(fresh, k)
	}
	slices.SortFunc(fresh, func(a, b *knownSum) int { return cmp.Compare(a.name, b.name) })
	seen := s.seen + len(fresh)
	all := len(s.known)+len(fresh) <= 4*seen+1000 // else most is left of files that went
	var body []byte
	body = slices.Grow(body, 56*len(s.known)+80*len(fresh))
	count := int64(0)
	var last fileStat
	before, at := "", int64(0)
	var layers []byte // those that are still named
	number := make([]int64, len(s.layers)+1)
	numbers := int64(0)
	add := func(k *knownSum) {
		if number[k.in] == 0 && k.in > 0 {
			sum, err := hex.DecodeString(s.layers[k.in-1].Encoded())
			if err == nil {
				layers = append(layers, sum...)
				numbers++
				number[k.in] = numbers
			}
		}
		shared := 0
		for shared < len(k.name) && shared < len(before) && k.name[shared] == before[shared] {
			shared++
		}
		before = k.name
		body = binary.AppendVarint(binary.AppendVarint(body, int64(shared)), int64(len(k.name)-shared))
		body = append(body, k.name[shared:]...)
		for _, d := range [...]int64{k.Size - last.Size, k.Mtime - last.Mtime, k.Ctime - last.Ctime, int64(k.Inode - last.Inode), int64(k.Dev - last.Dev)} {
			body = binary.AppendVarint(body, d)
		}
		body = append(body, k.sum[:]...)
		body = binary.AppendVarint(body, number[k.in])
		if number[k.in] > 0 {
			body = binary.AppendVarint(body, k.at-at)
			at = k.at
		}
		last = k.fileStat
		count++
	}
	for i := range s.known {
		k := &s.known[i]
		for len(fresh) > 0 && fresh[0].name < k.name {
			add(fresh[0])
			fresh = fresh[1:]
		}
		if s.fresh[k.name] == nil && (all || k.seen) {
			add(k)
		}
	}
	for _, k := range fresh {
		add(k)
	}
	b := append(binary.AppendVarint([]byte{sumsVersion}, numbers), layers...)
	b = binary.AppendVarint(b, count)
	if data, err = layer.Squeeze(append(b, body...)); err != nil {
		return nil, false, fmt.Errorf("saving digests of files: %w", err)
	}
	return data, true, nil
}

// get gives what is known of a file; nil when nothing is of what stat says. Its digest does not change, the rest is guarded by mu.
func (s *Sums) get(name string, st fileStat) *knownSum {
	if st.Ctime == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.fresh[name]; k != nil {
		if k.fileStat != st {
			return nil
		}
		return k
	}
	i, ok := s.find(name)
	if !ok || s.known[i].fileStat != st {
		return nil
	}
	k := &s.known[i]
	if !k.seen {
		k.seen = true
		s.seen++
	}
	return k
}

// find looks where it found something last, and near it.
func (s *Sums) find(name string) (at int, ok bool) {
	for i := s.last; i < min(s.last+2, len(s.known)); i++ {
		if s.known[i].name == name {
			s.last = i
			return i, true
		}
	}
	at, ok = slices.BinarySearchFunc(s.known, name, func(k knownSum, name string) int { return cmp.Compare(k.name, name) })
	if ok {
		s.last = at
	}
	return at, ok
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
	s.fresh[name] = &knownSum{fileStat: st, name: name, sum: sum}
}

package source

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// smallFile is the most bytes of a file that is read from a layer that has it: to open a file costs as much as to read
// these and to hold them against the digest.
const smallFile = 16 << 10

// Placing gathers where in a new layer files of a tree are.
type Placing struct {
	t  *Files
	at []int64 // by place in stats; 0: not in the layer
}

// Placing begins one.
func (t *Files) Placing() *Placing {
	return &Placing{t: t, at: make([]int64, len(t.stats))}
}

// Put says where the bytes of an entry's file are, for [layer.Source]'s Placed.
func (p *Placing) Put(e *layer.Entry, offset int64) {
	if e.Offset >= 0 && e.Offset < int64(len(p.at)) && e.Size <= smallFile {
		p.at[e.Offset] = offset
	}
}

// Done says which layer it was. Later builds read there what has not changed: one tar instead of very many files.
func (p *Placing) Done(diffID digest.Digest) {
	s := p.t.sums
	if s == nil || diffID.Algorithm() != digest.SHA256 {
		return
	}
	for i := range p.t.TOC.Entries {
		e := &p.t.TOC.Entries[i]
		st := p.t.known(e)
		if e.Size == 0 || p.at[e.Offset] == 0 {
			continue
		}
		k := st.known
		if k == nil {
			if k = s.get(e.Name, st.fileStat); k == nil {
				continue
			}
		}
		s.place(k, diffID, p.at[e.Offset])
	}
}

// place remembers which layer has a file where.
func (s *Sums) place(k *knownSum, diffID digest.Digest, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.layers)
	if n == 0 || s.layers[n-1] != diffID {
		s.layers = append(s.layers, diffID)
		n++
	}
	k.in, k.at = int32(n), at
	s.moved = true
}

// placed says which layer has a file where; "" is none.
func (s *Sums) placed(k *knownSum) (diffID digest.Digest, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.in == 0 {
		return "", 0
	}
	return s.layers[k.in-1], k.at
}

// keptBytes reads files from layers that have them.
type keptBytes struct {
	mu     sync.Mutex // guards what follows
	layers map[digest.Digest]layer.ReaderAtCloser
	of     digest.Digest // whose bytes are in window
	from   int64
	window []byte
	room   *[windowSize]byte
}

// Sizes of what is read at once: files mostly follow each other as they do in the layer.
const (
	windowSize = 256 << 10
	windowStep = 1 << 20 // what is not farther ahead than this is likely followed by what is next to it
	windowSome = smallFile
)

// open gives the bytes of a file, which are what its digest says; nil when no layer has them at hand.
func (c *keptBytes) open(s *Sums, k *knownSum) io.ReadCloser {
	if s.Open == nil || k.Size > smallFile || k.Size == 0 {
		return nil
	}
	diffID, at := s.placed(k)
	if diffID == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	end := at + k.Size
	if c.of != diffID || at < c.from || end > c.from+int64(len(c.window)) {
		if !c.fill(s, diffID, at) || end > c.from+int64(len(c.window)) {
			return nil
		}
	}
	data := c.window[at-c.from : end-c.from]
	if sha256.Sum256(data) != k.sum {
		return nil // the file is read then
	}
	f := keptFiles.Get().(*keptFile) //nolint:forcetypeassert // the pool holds nothing else
	f.data = append(f.data[:0], data...)
	f.Reader.Reset(f.data)
	return f
}

// fill reads what is at at and follows it.
func (c *keptBytes) fill(s *Sums, diffID digest.Digest, at int64) bool {
	r, ok := c.layers[diffID]
	if !ok {
		var err error
		if r, err = s.Open(diffID); err != nil {
			r = nil
		}
		if c.layers == nil {
			c.layers = map[digest.Digest]layer.ReaderAtCloser{}
		}
		c.layers[diffID] = r
	}
	if r == nil {
		return false
	}
	if c.room == nil {
		c.room = new([windowSize]byte)
	}
	n := windowSome
	if ahead := at - c.from - int64(len(c.window)); c.of != diffID || ahead >= 0 && ahead < windowStep {
		n = windowSize
	}
	got, err := r.ReadAt(c.room[:n], at)
	if err != nil && !errors.Is(err, io.EOF) {
		got = 0
	}
	c.of, c.from, c.window = diffID, at, c.room[:got]
	return got > 0
}

func (c *keptBytes) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, r := range c.layers {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	c.layers, c.of, c.window, c.room = nil, "", nil, nil
	return errors.Join(errs...)
}

// keptFile is a copy of the bytes of a file.
type keptFile struct {
	bytes.Reader
	data []byte
}

var keptFiles = sync.Pool{New: func() any { return new(keptFile) }}

// Close implements io.Closer. The file is not used afterwards.
func (f *keptFile) Close() error {
	keptFiles.Put(f)
	return nil
}

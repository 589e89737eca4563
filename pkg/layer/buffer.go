package layer

import "sync"

// copySize is the size of copy buffers.
const copySize = 256 << 10

// bufPool keeps copy buffers.
var bufPool buffers

type buffers struct{ p sync.Pool }

func (b *buffers) Get() *[]byte {
	if v, ok := b.p.Get().(*[]byte); ok {
		return v
	}
	s := make([]byte, copySize)
	return &s
}

func (b *buffers) Put(s *[]byte) { b.p.Put(s) }

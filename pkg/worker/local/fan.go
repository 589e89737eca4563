package local

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// Sizes of a fan: each reader can be so many pieces behind the writer.
const (
	fanPiece = 256 << 10
	fanAhead = 4
)

// fan hands one stream to several readers, each in a goroutine of its own and none copying it. It is written by one
// goroutine, which ends it by finish.
type fan struct {
	readers []*fanReader
	piece   *fanBuffer
	wait    sync.WaitGroup
	broken  atomic.Bool // a reader has failed: nothing of use can come of this
}

// fanBuffer is one piece of the stream; it is used again when no reader needs it any more.
type fanBuffer struct {
	data  []byte
	users atomic.Int32
}

var fanBuffers = sync.Pool{New: func() any { return &fanBuffer{data: make([]byte, 0, fanPiece)} }}

func (b *fanBuffer) release() {
	if b.users.Add(-1) == 0 {
		b.data = b.data[:0]
		fanBuffers.Put(b)
	}
}

// add starts a reader. All are added before the first Write.
func (f *fan) add(read func(io.Reader) error) {
	r := &fanReader{pieces: make(chan *fanBuffer, fanAhead)}
	f.readers = append(f.readers, r)
	f.wait.Go(func() {
		if r.err = read(r); r.err != nil {
			f.broken.Store(true)
		}
		r.drain()
	})
}

var errReader = errors.New("a reader of the stream failed")

// Write implements io.Writer. It fails soon after a reader failed.
func (f *fan) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if f.broken.Load() {
			return written, errReader
		}
		if f.piece == nil {
			f.piece, _ = fanBuffers.Get().(*fanBuffer)
		}
		room := f.piece.data[len(f.piece.data):cap(f.piece.data)]
		n := copy(room, p)
		f.piece.data = f.piece.data[:len(f.piece.data)+n]
		written, p = written+n, p[n:]
		if len(f.piece.data) == cap(f.piece.data) {
			f.flush()
		}
	}
	return written, nil
}

func (f *fan) flush() {
	b := f.piece
	f.piece = nil
	b.users.Store(int32(len(f.readers)))
	for _, r := range f.readers {
		r.pieces <- b
	}
}

// finish ends the stream: with err its readers fail by it. It waits for them, and returns the first error there was, that of a
// reader before errReader.
func (f *fan) finish(err error) error {
	if f.piece != nil {
		if err == nil && len(f.readers) > 0 {
			f.flush()
		} else {
			f.piece.data = f.piece.data[:0]
			fanBuffers.Put(f.piece)
			f.piece = nil
		}
	}
	for _, r := range f.readers {
		r.cause = err // before close: the reader sees it
		close(r.pieces)
	}
	f.wait.Wait()
	if err != nil && !errors.Is(err, errReader) {
		return err
	}
	for _, r := range f.readers {
		if r.err != nil && !errors.Is(r.err, errReader) {
			return r.err
		}
	}
	return err
}

// fanReader is the stream as one reader sees it.
type fanReader struct {
	pieces chan *fanBuffer
	piece  *fanBuffer
	at     int
	cause  error // why the stream ended early
	err    error // of the reader
}

// Read implements io.Reader.
func (r *fanReader) Read(p []byte) (int, error) {
	for r.piece == nil {
		b, ok := <-r.pieces
		if !ok {
			if r.cause != nil {
				return 0, r.cause
			}
			return 0, io.EOF
		}
		r.piece, r.at = b, 0
	}
	n := copy(p, r.piece.data[r.at:])
	if r.at += n; r.at == len(r.piece.data) {
		r.piece.release()
		r.piece = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo without copying.
func (r *fanReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if r.piece == nil {
			b, ok := <-r.pieces
			if !ok {
				return total, r.cause
			}
			r.piece, r.at = b, 0
		}
		n, err := w.Write(r.piece.data[r.at:])
		total += int64(n)
		r.piece.release()
		r.piece = nil
		if err != nil {
			return total, err
		}
	}
}

// drain lets go of what the reader did not read.
func (r *fanReader) drain() {
	if r.piece != nil {
		r.piece.release()
		r.piece = nil
	}
	for b := range r.pieces {
		b.release()
	}
}

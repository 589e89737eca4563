package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Sizes of the pieces that are compressed side by side. They decide the bytes of
// every layer, as the levels do; the number of workers does not.
const (
	gzipBlock = 1 << 20
	gzipDict  = 32 << 10 // deflate's window: what a block may refer back to
	zstdFrame = 4 << 20
)

// The most workers of one Compress, for its memory: a block of each and two more are in flight.
const (
	maxGzipWorkers = 8
	maxZstdWorkers = 4
)

// Compress streams r to w. The bytes depend on r and c only.
//
// gzip is one member (no name, no time, OS unknown) of blocks of 1 MiB, each ended by
// a sync flush and primed with the 32 KiB before it; zstd is a sequence of
// independent frames of 4 MiB with checksums. Either is compressed by several goroutines.
func Compress(ctx context.Context, w io.Writer, r io.Reader, c Compression) error {
	return compress(ctx, w, r, c, runtime.GOMAXPROCS(0))
}

func compress(ctx context.Context, w io.Writer, r io.Reader, c Compression, workers int) error {
	if err := c.check(); err != nil {
		return err
	}
	switch c.algorithm() {
	case Gzip:
		return compressGzip(ctx, w, r, c.Level, min(workers, maxGzipWorkers))
	case Zstd:
		return compressZstd(ctx, w, r, c.Level, min(workers, maxZstdWorkers))
	case EStargz:
		return fmt.Errorf("%w: estargz reads a layer twice: use Estargz", ErrInvalid)
	}
	buf := bufPool.Get()
	defer bufPool.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, &ctxReader{ctx, r}, *buf)
	return err
}

// ctxReader ends with the context.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call that made it
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// block is one piece on its way: in is compressed with dict before it to out.
type block struct {
	in   []byte
	dict []byte
	out  bytes.Buffer
	err  error
	done chan struct{}
}

// keptBlocks keeps blocks by their size: most layers are smaller than one, and to make one costs more than to fill it.
var keptBlocks = blockPool{pools: map[int]*sync.Pool{gzipBlock: {}, zstdFrame: {}}}

type blockPool struct{ pools map[int]*sync.Pool }

func (p blockPool) get(size int) *block {
	if b, ok := p.pools[size].Get().(*block); ok {
		return b
	}
	return &block{in: make([]byte, 0, size)}
}

func (p blockPool) put(b *block) {
	b.err = nil
	p.pools[cap(b.in)].Put(b)
}

// pipeline cuts r into blocks of size bytes, lets workers press them and writes the results in order. dict
// bytes of each block are kept for the next one. seen is called with each block in order.
func pipeline(ctx context.Context, w io.Writer, r io.Reader, size, dict, workers int, seen func([]byte), press func(*block) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers = max(workers, 1)
	work := make(chan *block)
	order := make(chan *block, workers)
	free := make(chan *block, workers+2)
	for range cap(free) {
		free <- nil // taken when first used
	}
	defer func() {
		for range cap(free) {
			if b := <-free; b != nil {
				keptBlocks.put(b)
			}
		}
	}()

	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for b := range work {
				b.err = press(b)
				close(b.done)
			}
		})
	}
	var writeErr error
	wg.Go(func() {
		for b := range order {
			<-b.done
			if writeErr == nil {
				writeErr = b.err
			}
			if writeErr == nil {
				_, writeErr = w.Write(b.out.Bytes())
			}
			if writeErr != nil {
				cancel(writeErr)
			}
			free <- b
		}
	})

	src := &ctxReader{ctx, r}
	var readErr error
	var last []byte // end of the block before
	for readErr == nil {
		b := <-free
		if b == nil {
			b = keptBlocks.get(size)
		}
		b.done = make(chan struct{})
		b.out.Reset()
		var n int
		n, readErr = io.ReadFull(src, b.in[:size])
		b.in = b.in[:n]
		if n == 0 {
			free <- b
			break
		}
		b.dict = append(b.dict[:0], last...)
		last = append(last[:0], b.in[max(0, n-dict):]...)
		if seen != nil {
			seen(b.in)
		}
		work <- b
		order <- b
	}
	close(work)
	close(order)
	wg.Wait()
	if writeErr != nil {
		return writeErr
	}
	if readErr != nil && readErr != io.EOF && readErr != io.ErrUnexpectedEOF {
		return readErr
	}
	return nil
}

// gzipWriters keeps encoders by their level.
var gzipWriters [10]sync.Pool

func compressGzip(ctx context.Context, w io.Writer, r io.Reader, level, workers int) error {
	if level == 0 {
		level = defaultGzipLevel
	}
	xfl := byte(0)
	if level == 9 {
		xfl = 2
	}
	// RFC 1952: magic, deflate, no flags, no time, extra flags, OS 255 (unknown).
	if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, xfl, 255}); err != nil {
		return err
	}
	writers := &gzipWriters[level]
	crc, size := uint32(0), uint32(0)
	err := pipeline(ctx, w, r, gzipBlock, gzipDict, workers,
		func(p []byte) {
			crc = crc32.Update(crc, crc32.IEEETable, p)
			size += uint32(len(p))
		},
		func(b *block) error {
			fw, ok := writers.Get().(*flate.Writer)
			if !ok {
				var err error
				if fw, err = flate.NewWriter(nil, level); err != nil {
					return err
				}
			}
			defer writers.Put(fw)
			fw.ResetDict(&b.out, b.dict)
			if _, err := fw.Write(b.in); err != nil {
				return err
			}
			return fw.Flush()
		})
	if err != nil {
		return fmt.Errorf("compressing with gzip: %w", err)
	}
	tail := []byte{3, 0} // an empty final block
	tail = binary.LittleEndian.AppendUint32(tail, crc)
	tail = binary.LittleEndian.AppendUint32(tail, size)
	_, err = w.Write(tail)
	return err
}

// zstdEncoders keeps encoders by their level.
var zstdEncoders [23]sync.Pool

func compressZstd(ctx context.Context, w io.Writer, r io.Reader, level, workers int) error {
	if level == 0 {
		level = defaultZstdLevel
	}
	enc, ok := zstdEncoders[level].Get().(*zstd.Encoder)
	if !ok {
		var err error
		if enc, err = zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
			zstd.WithEncoderConcurrency(maxZstdWorkers),
			zstd.WithWindowSize(zstdFrame)); err != nil {
			return fmt.Errorf("compressing with zstd: %w", err)
		}
	}
	defer zstdEncoders[level].Put(enc)
	empty := true
	err := pipeline(ctx, w, r, zstdFrame, 0, workers,
		func([]byte) { empty = false },
		func(b *block) error {
			out := enc.EncodeAll(b.in, b.out.AvailableBuffer())
			_, err := b.out.Write(out)
			return err
		})
	if err == nil && empty {
		_, err = w.Write(emptyZstd)
	}
	if err != nil {
		return fmt.Errorf("compressing with zstd: %w", err)
	}
	return nil
}

// emptyZstd is a frame of no bytes (RFC 8878): magic, single segment of size 0, one last raw block.
var emptyZstd = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0}

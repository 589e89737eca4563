package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/opencontainers/go-digest"
)

// This file writes the members of an eStargz, which workers compress.

// estargzWriter reads a tar from r and writes its members.
type estargzWriter struct {
	r     *ctxReader
	at    int64 // in r
	level int
	diff  hash.Hash
	size  int64 // bytes hashed by diff

	toc       []*estargzEntry
	tocDigest digest.Digest
	batch     *estargzBlock
	order     chan *estargzBlock
	work      chan *estargzBlock
}

// estargzBlock is a few gzip members on their way.
type estargzBlock struct {
	in     []byte
	pieces []estargzPiece
	out    bytes.Buffer
	err    error
	done   chan struct{}
}

// estargzPiece is what becomes one gzip member: n bytes, of which the first are a chunk of a file.
type estargzPiece struct {
	n, payload int
	entry      *estargzEntry // of the chunk; nil: the piece begins with headers
	whole      bool          // the chunk is the file
	packed     int           // bytes of the gzip member
}

func (z *estargzWriter) run(ctx context.Context, w io.Writer, members []estargzMember, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	z.r.ctx = ctx
	workers = max(workers, 1)
	z.order, z.work = make(chan *estargzBlock, workers+2), make(chan *estargzBlock)
	pressed := make(chan struct{})
	for range workers {
		go func() {
			for b := range z.work {
				b.err = b.press(z.level)
				close(b.done)
			}
			pressed <- struct{}{}
		}()
	}
	var offset int64
	var writeErr error
	written := make(chan struct{})
	go func() {
		defer close(written)
		for b := range z.order {
			<-b.done
			if writeErr == nil {
				writeErr = b.err
			}
			for _, p := range b.pieces {
				if p.entry != nil {
					p.entry.Offset = offset
				}
				offset += int64(p.packed)
			}
			if writeErr == nil {
				_, writeErr = w.Write(b.out.Bytes())
			}
			if writeErr != nil {
				cancel(writeErr)
			}
		}
	}()
	readErr := z.members(members)
	close(z.work)
	close(z.order)
	<-written
	for range workers {
		<-pressed
	}
	if writeErr != nil {
		return writeErr
	}
	if readErr != nil {
		return readErr
	}
	return z.finish(w, offset)
}

// members reads all members and hands them on in pieces.
func (z *estargzWriter) members(members []estargzMember) error {
	z.begin(nil, false)
	for _, m := range members {
		if m.entry == nil {
			if _, err := io.CopyN(io.Discard, z.r, m.end-z.at); err != nil {
				return noEOF(err)
			}
			z.at = m.end
			continue
		}
		if err := z.copy(m.data - z.at); err != nil {
			return err
		}
		if m.entry.Type != "reg" || m.entry.Size == 0 {
			z.toc = append(z.toc, m.entry)
		} else if err := z.file(m.entry); err != nil {
			return err
		}
		if err := z.copy(m.end - z.at); err != nil {
			return err
		}
	}
	z.flush()
	_, err := io.Copy(io.Discard, z.r) // the end marker; whoever reads to the end has verified
	return err
}

// file reads a file, each chunk of it as the beginning of a piece.
func (z *estargzWriter) file(e *estargzEntry) error {
	size := e.Size
	whole := size <= estargzChunk
	var all hash.Hash
	if !whole {
		all = sha256.New()
	}
	chunk := e
	for at := int64(0); at < size; at += estargzChunk {
		n := min(size-at, estargzChunk)
		if n == estargzChunk {
			chunk.ChunkSize = n
		}
		chunk.ChunkOffset = at
		z.toc = append(z.toc, chunk)
		z.begin(chunk, whole)
		if err := z.copy(n); err != nil {
			return err
		}
		z.batch.pieces[len(z.batch.pieces)-1].payload = int(n)
		if all != nil {
			all.Write(z.batch.in[len(z.batch.in)-int(n):])
		}
		chunk = &estargzEntry{Name: e.Name, Type: "chunk"}
	}
	if all != nil {
		e.Digest = digest.NewDigest(digest.SHA256, all).String()
	}
	return nil
}

// begin starts a piece, in another block when this one is large enough.
func (z *estargzWriter) begin(e *estargzEntry, whole bool) {
	if z.batch != nil && len(z.batch.in) >= estargzBatch {
		z.flush()
	}
	if z.batch == nil {
		z.batch = &estargzBlock{done: make(chan struct{})}
	}
	z.batch.pieces = append(z.batch.pieces, estargzPiece{entry: e, whole: whole})
}

func (z *estargzWriter) flush() {
	if z.batch == nil {
		return
	}
	z.work <- z.batch
	z.order <- z.batch
	z.batch = nil
}

// copy reads n bytes into the piece under way. Headers may go over into further pieces.
func (z *estargzWriter) copy(n int64) error {
	for n > 0 {
		if last := z.batch.pieces[len(z.batch.pieces)-1]; last.payload+estargzChunk < last.n { // headers without end
			z.begin(nil, false)
		}
		b := z.batch
		part := int(min(n, estargzChunk))
		from := len(b.in)
		b.in = append(b.in, make([]byte, part)...)
		if _, err := io.ReadFull(z.r, b.in[from:]); err != nil {
			return noEOF(err)
		}
		z.diff.Write(b.in[from:])
		b.pieces[len(b.pieces)-1].n += part
		z.at, z.size, n = z.at+int64(part), z.size+int64(part), n-int64(part)
	}
	return nil
}

// press compresses every piece to a gzip member of its own.
func (b *estargzBlock) press(level int) error {
	at := 0
	for i := range b.pieces {
		p := &b.pieces[i]
		data := b.in[at : at+p.n]
		at += p.n
		if p.entry != nil {
			p.entry.ChunkDigest = digest.FromBytes(data[:p.payload]).String()
			if p.whole {
				p.entry.Digest = p.entry.ChunkDigest
			}
		}
		if len(data) == 0 {
			continue
		}
		before := b.out.Len()
		if err := gzipMember(&b.out, data, level); err != nil {
			return err
		}
		p.packed = b.out.Len() - before
	}
	return nil
}

// gzipMember writes data as one gzip member: no name, no time, OS unknown.
func gzipMember(w *bytes.Buffer, data []byte, level int) error {
	xfl := byte(0)
	if level == 9 {
		xfl = 2
	}
	w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, xfl, 255})
	fw, ok := gzipWriters[level].Get().(*flate.Writer)
	if !ok {
		var err error
		if fw, err = flate.NewWriter(nil, level); err != nil {
			return err
		}
	}
	defer gzipWriters[level].Put(fw)
	fw.ResetDict(w, nil)
	if _, err := fw.Write(data); err != nil {
		return err
	}
	if err := fw.Close(); err != nil {
		return err
	}
	tail := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))
	w.Write(binary.LittleEndian.AppendUint32(tail, uint32(len(data))))
	return nil
}

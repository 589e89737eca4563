package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/opencontainers/go-digest"
)

// Annotations of a layer's descriptor that readers of eStargz look for.
const (
	AnnotationEstargzTOC  = "containerd.io/snapshot/stargz/toc.digest"
	AnnotationEstargzSize = "io.containers.estargz.uncompressed-size"
)

const (
	estargzTOC   = "stargz.index.json" // the member that the table of contents is
	estargzChunk = 4 << 20             // of a file that is a gzip member of its own
	estargzBatch = 1 << 20             // about what a worker compresses at once
)

// EstargzInfo is what became of a layer: eStargz adds its table of contents to the tar, so that the DiffID is another one.
type EstargzInfo struct {
	DiffID digest.Digest
	Size   int64         // uncompressed
	TOC    digest.Digest // of the table of contents
}

// Annotations are for the descriptor of the blob.
func (i EstargzInfo) Annotations() map[string]string {
	return map[string]string{AnnotationEstargzTOC: i.TOC.String(), AnnotationEstargzSize: fmt.Sprint(i.Size)}
}

// Estargz writes the uncompressed layer that open opens, twice, as eStargz: gzip whose files can be read without what is before
// them (github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md). Every file, and every 4 MiB of a large one, begins a
// gzip member; the last member but one is a table of contents, and the last says where that is. The bytes depend on the layer
// and c's level only. A table that the layer has already is left out.
func Estargz(ctx context.Context, w io.Writer, open func() (io.ReadCloser, error), c Compression) (EstargzInfo, error) {
	return writeEstargz(ctx, w, open, c, runtime.GOMAXPROCS(0))
}

func writeEstargz(ctx context.Context, w io.Writer, open func() (io.ReadCloser, error), c Compression, workers int) (_ EstargzInfo, err error) {
	if err := c.check(); err != nil {
		return EstargzInfo{}, err
	}
	members, err := estargzMembers(ctx, open)
	if err != nil {
		return EstargzInfo{}, err
	}
	r, err := open()
	if err != nil {
		return EstargzInfo{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	level := c.Level
	if level == 0 {
		level = defaultGzipLevel
	}
	z := &estargzWriter{r: &ctxReader{ctx, r}, level: level, diff: sha256.New()}
	if err := z.run(ctx, w, members, min(workers, maxGzipWorkers)); err != nil {
		return EstargzInfo{}, fmt.Errorf("compressing with estargz: %w", err)
	}
	return EstargzInfo{DiffID: digest.NewDigest(digest.SHA256, z.diff), Size: z.size, TOC: z.tocDigest}, nil
}

// estargzMember is one member of a tar: its headers from start, its data, its padding up to end.
type estargzMember struct {
	start, data, end int64
	entry            *estargzEntry // nil: it is left out
}

// estargzEntry is an entry of the table of contents.
type estargzEntry struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Size        int64             `json:"size,omitempty"`
	ModTime     string            `json:"modtime,omitempty"`
	LinkName    string            `json:"linkName,omitempty"`
	Mode        int64             `json:"mode,omitempty"`
	UID         int               `json:"uid,omitempty"`
	GID         int               `json:"gid,omitempty"`
	Offset      int64             `json:"offset,omitempty"`
	DevMajor    int64             `json:"devMajor,omitempty"`
	DevMinor    int64             `json:"devMinor,omitempty"`
	Xattrs      map[string][]byte `json:"xattrs,omitempty"`
	Digest      string            `json:"digest,omitempty"`
	ChunkOffset int64             `json:"chunkOffset,omitempty"`
	ChunkSize   int64             `json:"chunkSize,omitempty"`
	ChunkDigest string            `json:"chunkDigest,omitempty"`
}

var estargzTypes = map[byte]string{
	tar.TypeReg: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink",
	tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
}

// estargzMembers lists the members of a layer, by the rules of every other reader here.
func estargzMembers(ctx context.Context, open func() (io.ReadCloser, error)) (out []estargzMember, err error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s := newScanner(ctx, r, nil, Limits{})
	end := int64(0)
	for {
		e, err := s.next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		m := estargzMember{start: end, data: s.m.pos, end: s.m.pos + s.remain + s.padding}
		if e.Name != estargzTOC {
			if e.Sparse != nil {
				return nil, fmt.Errorf("%q: %w: a sparse file cannot be in eStargz: use gzip", e.Name, ErrType)
			}
			m.entry = estargzEntryOf(e)
		}
		out, end = append(out, m), m.end
	}
}

func estargzEntryOf(e *Entry) *estargzEntry {
	out := &estargzEntry{
		Name: e.Name, Type: estargzTypes[e.Type], Size: e.Size, LinkName: e.Link, Mode: e.Mode, UID: e.UID, GID: e.GID,
		DevMajor: e.Major, DevMinor: e.Minor,
	}
	switch {
	case e.Whiteout:
		out.Name, out.Type = whiteoutName(e.Name), "reg"
	case e.Opaque:
		out.Name, out.Type = opaqueName(e.Name), "reg"
	case e.Type == tar.TypeDir:
		out.Name += "/"
	}
	if t := e.ModTime.UTC().Round(time.Second); t.Unix() != 0 && !t.IsZero() {
		out.ModTime = t.Format(time.RFC3339)
	}
	for k, v := range e.Xattrs {
		if out.Xattrs == nil {
			out.Xattrs = map[string][]byte{}
		}
		out.Xattrs[k] = []byte(v)
	}
	if out.Type == "reg" && out.Size == 0 {
		out.Digest = digest.FromString("").String()
	}
	return out
}

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

// finish writes the table of contents, which begins at offset, and where it is.
func (z *estargzWriter) finish(w io.Writer, offset int64) error {
	doc, err := json.Marshal(struct {
		Version int             `json:"version"`
		Entries []*estargzEntry `json:"entries"`
	}{1, z.toc})
	if err != nil {
		return err
	}
	z.tocDigest = digest.FromBytes(doc)
	var member, packed bytes.Buffer
	tw := tar.NewWriter(&member)
	err = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: estargzTOC, Mode: 0o444, Size: int64(len(doc)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = tw.Write(doc)
	}
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		return err
	}
	z.diff.Write(member.Bytes())
	z.size += int64(member.Len())
	if err := gzipMember(&packed, member.Bytes(), z.level); err != nil {
		return err
	}
	packed.Write(estargzFooter(offset))
	_, err = w.Write(packed.Bytes())
	return err
}

// estargzFooter is an empty gzip member whose extra field says where the table of contents begins (51 bytes).
func estargzFooter(offset int64) []byte {
	field := fmt.Sprintf("%016xSTARGZ", offset)
	b := []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(field)+4))
	b = append(b, 'S', 'G')
	b = binary.LittleEndian.AppendUint16(b, uint16(len(field)))
	b = append(b, field...)
	b = append(b, 1, 0, 0, 0xff, 0xff) // the last block, stored, of no bytes
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

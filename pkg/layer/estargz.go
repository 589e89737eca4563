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
	"io"
	"runtime"
	"time"

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

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// bufferSize is what is hashed and written at once. A transfer has one for each of its streams: larger ones are not faster.
const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Put streams r into the store and returns what it became. It is atomic and
// idempotent: a crash leaves no partial blob, a repeat costs one hash. The blob
// is leased by this process until Close.
func (s *Store) Put(ctx context.Context, mediaType string, r io.Reader) (ocispec.Descriptor, error) {
	w, err := s.ingest(digest.Canonical, 0)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Abort()
	if err := w.fill(ctx, r); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("putting %s: %w", orBlob(mediaType), err)
	}
	return w.Commit(ctx, mediaType)
}

// PutExpected streams r into the store and reports ErrCorrupt, keeping nothing,
// when size or digest differ from desc's. It reads at most one byte more than
// desc.Size; a size of 0 is not checked, as in Open, except by the digest.
func (s *Store) PutExpected(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := checkDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size < 0 {
		return corrupt(desc.Digest, "its descriptor has the size %d", desc.Size)
	}
	w, err := s.ingest(desc.Digest.Algorithm(), desc.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if desc.Size > 0 {
		r = io.LimitReader(r, desc.Size+1)
	}
	if err := w.fill(ctx, r); err != nil {
		return fmt.Errorf("putting %s: %w", desc.Digest, err)
	}
	switch got := w.size + int64(w.n); {
	case desc.Size > 0 && got > desc.Size:
		return corrupt(desc.Digest, "more than the expected %d bytes arrived", desc.Size)
	case desc.Size > 0 && got < desc.Size:
		return corrupt(desc.Digest, "%d bytes arrived, %d expected", got, desc.Size)
	}
	if err := w.sum(); err != nil {
		return err
	}
	if got := w.digest(); got != desc.Digest {
		return corrupt(desc.Digest, "what arrived is %s", got)
	}
	_, err = w.Commit(ctx, desc.MediaType)
	return err
}

// Ingest is a blob being written. Exactly one of Commit, Finish and Abort ends it (Abort
// after another does nothing). It is not for several goroutines at once. What fits into the buffer needs no file until it is known
// not to be there: a file that is made and removed costs the next ones that are made near it a look at where it was (ext4).
type Ingest struct {
	s        *Store
	f        *os.File // nil: all is in buf
	algo     digest.Algorithm
	h        hash.Hash
	buf      *[bufferSize]byte // nil when ended
	n        int               // bytes in buf
	summed   bool              // they are hashed: nothing follows
	size     int64             // bytes flushed
	expected int64             // 0 when unknown
	err      error             // the first failure: nothing can follow
	moved    bool              // the file has its final name
	only     bool              // digested, not written
}

// Ingest starts a blob whose bytes come by Write.
func (s *Store) Ingest(ctx context.Context) (*Ingest, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return s.ingest(digest.Canonical, 0)
}

func (s *Store) ingest(algo digest.Algorithm, expected int64) (*Ingest, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	buf, _ := buffers.Get().(*[bufferSize]byte)
	return &Ingest{s: s, algo: algo, h: algo.Hash(), buf: buf, expected: expected}, nil
}

// open makes the file.
func (w *Ingest) open() (err error) {
	if w.f != nil {
		return nil
	}
	w.f, err = createLocked(w.s.path(ingestDir), "blob-*")
	if err == nil {
		return nil
	}
	if ns := (*NoSpaceError)(nil); errors.As(err, &ns) {
		ns.Need = max(w.expected, int64(w.n))
	}
	return fmt.Errorf("starting a blob: %w", err)
}

// Write implements io.Writer and hashes on the way.
func (w *Ingest) Write(p []byte) (int, error) {
	if w.buf == nil || w.summed {
		return 0, fmt.Errorf("writing a blob that has ended: %w", fs.ErrClosed)
	}
	if w.only {
		w.h.Write(p)
		w.size += int64(len(p))
		return len(p), nil
	}
	written := 0
	for len(p) > 0 {
		if w.n == len(w.buf) {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
		n := copy(w.buf[w.n:], p)
		w.n += n
		written += n
		p = p[n:]
	}
	return written, w.err
}

// fill reads r to EOF, and asks ctx between reads.
func (w *Ingest) fill(ctx context.Context, r io.Reader) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w.n == len(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n, err := r.Read(w.buf[w.n:])
		w.n += n
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// flush hashes and writes what is buffered.
func (w *Ingest) flush() error {
	if w.err != nil || w.n == 0 {
		return w.err
	}
	if w.err = w.open(); w.err != nil {
		return w.err
	}
	if !w.summed {
		w.h.Write(w.buf[:w.n])
	}
	n, err := w.f.Write(w.buf[:w.n])
	w.size += int64(n)
	if err != nil {
		w.err = storageError(w.f.Name(), max(w.expected-w.size, int64(w.n-n)), err)
	}
	w.n = 0
	return w.err
}

// DigestOnly drops what was written, and what follows is only digested: Finish ends it.
func (w *Ingest) DigestOnly() error {
	if w.buf == nil || w.summed {
		return fmt.Errorf("digesting a blob that has ended: %w", fs.ErrClosed)
	}
	if w.only || w.err != nil {
		return w.err
	}
	w.h.Write(w.buf[:w.n])
	w.size += int64(w.n)
	w.n, w.only = 0, true
	if w.f == nil {
		return nil
	}
	return w.f.Truncate(0) // it goes with Abort
}

// Finish ends a blob without keeping it, and says what it would have become.
func (w *Ingest) Finish(mediaType string) (ocispec.Descriptor, error) {
	if w.buf == nil {
		return ocispec.Descriptor{}, fmt.Errorf("digesting a blob that has ended: %w", fs.ErrClosed)
	}
	defer w.Abort()
	if err := w.DigestOnly(); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: w.digest(), Size: w.size}, nil
}

// sum hashes what is buffered, and writes it if there is a file already.
func (w *Ingest) sum() error {
	if w.f != nil || w.err != nil {
		return w.flush()
	}
	if !w.summed {
		w.h.Write(w.buf[:w.n])
		w.summed = true
	}
	return nil
}

func (w *Ingest) digest() digest.Digest { return digest.NewDigest(w.algo, w.h) }

// Commit makes the blob visible.
func (w *Ingest) Commit(ctx context.Context, mediaType string) (ocispec.Descriptor, error) {
	if w.buf == nil {
		return ocispec.Descriptor{}, fmt.Errorf("committing a blob that has ended: %w", fs.ErrClosed)
	}
	defer w.Abort()
	if w.only {
		return ocispec.Descriptor{}, fmt.Errorf("committing a blob that was only digested: %w", ErrInvalid)
	}
	err := w.sum()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: w.digest(), Size: w.size + int64(w.n)}
	if err == nil && w.f == nil && !w.s.placed(desc) {
		err = w.write() // before others wait for it
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("writing %s: %w", orBlob(mediaType), err)
	}
	leave, err := w.s.using(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer leave()
	if err := w.s.take(desc.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := w.s.place(w, desc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("committing %s: %w", desc.Digest, err)
	}
	return desc, nil
}

// Abort drops the blob.
func (w *Ingest) Abort() {
	if w.buf == nil {
		return
	}
	if w.f != nil {
		_ = w.f.Close()
		if !w.moved {
			_ = os.Remove(w.f.Name())
		}
		w.f = nil
	}
	buffers.Put(w.buf)
	w.buf = nil
}

// write writes what is only buffered to a file.
func (w *Ingest) write() error {
	if err := w.open(); err != nil {
		return err
	}
	return w.flush()
}

// placed reports whether a blob seems to be there.
func (s *Store) placed(desc ocispec.Descriptor) bool {
	fi, err := os.Lstat(s.Path(desc.Digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == desc.Size
}

// place moves a written blob to its name, unless a good one is there. The caller
// holds gc.lock and the lease.
func (s *Store) place(w *Ingest, desc ocispec.Descriptor) error {
	path := s.Path(desc.Digest)
	switch fi, err := os.Lstat(path); {
	case err == nil && fi.Mode().IsRegular() && fi.Size() == desc.Size:
		// What is there may be durable and what was written now is not, so it stays.
		if !isDurable(fi) {
			s.noteDirty(desc.Digest)
		}
		return nil
	case err == nil && fi.IsDir():
		if err := s.setAside(desc.Digest, fi); err != nil {
			return err
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := w.write(); err != nil { // else it is written already: it was there a moment ago
		return err
	}
	// Windows renames only what is closed. No collection can come between.
	if err := w.f.Close(); err != nil {
		return storageError(path, desc.Size, err)
	}
	err := os.Rename(w.f.Name(), path)
	if errors.Is(err, fs.ErrNotExist) { // the first blob of its algorithm
		if err := ensureDir(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Rename(w.f.Name(), path)
	}
	if isCrossDevice(err) {
		err = moveByCopy(w.f.Name(), path)
	}
	if err != nil {
		return storageError(path, desc.Size, err)
	}
	w.moved = true
	s.mu.Lock()
	s.fresh[desc.Digest] = struct{}{}
	s.mu.Unlock()
	s.grown.Add(desc.Size)
	s.noteDirty(desc.Digest)
	return nil
}

// moveByCopy serves stores whose blobs/ was put on another file system.
func moveByCopy(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.CreateTemp(filepath.Dir(to), tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dst.Close()
			_ = os.Remove(dst.Name())
		}
	}()
	if err := dst.Chmod(fileMode); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Close(); err != nil {
		return err
	}
	if err := os.Rename(dst.Name(), to); err != nil {
		return err
	}
	return os.Remove(from)
}

// PutBytes is Put for a document in memory.
func (s *Store) PutBytes(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	return s.Put(ctx, mediaType, bytes.NewReader(data))
}

func orBlob(mediaType string) string {
	if mediaType == "" {
		return "a blob"
	}
	return mediaType
}

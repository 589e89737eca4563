package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Path is the blob's file, for passing it to another process as a descriptor. It
// is "" for what is no digest. The file must not be changed.
func (s *Store) Path(d digest.Digest) string {
	if checkDigest(d) != nil {
		return ""
	}
	return s.path(blobsDir, d.Algorithm().String(), d.Encoded())
}

// openBlob opens a blob's file and makes sure that it is a file.
func (s *Store) openBlob(d digest.Digest) (*os.File, fs.FileInfo, error) {
	if err := checkDigest(d); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(s.Path(d), os.O_RDONLY|openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, notFound("blob " + d.String())
	}
	if err != nil {
		if fi, lerr := os.Lstat(s.Path(d)); lerr == nil && !fi.Mode().IsRegular() {
			return nil, nil, corrupt(d, "it is %s", kindOf(fi.Mode()))
		}
		return nil, nil, fmt.Errorf("blob %s: %w", d, err)
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if !fi.Mode().IsRegular() {
		_ = f.Close()
		return nil, nil, corrupt(d, "it is %s", kindOf(fi.Mode()))
	}
	return f, fi, nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory, not a file"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link, not a file"
	case m&fs.ModeNamedPipe != 0:
		return "a fifo, not a file"
	}
	return "not a regular file"
}

// Open returns the blob. Read reports ErrCorrupt in place of io.EOF if the bytes
// do not match desc: whoever reads to EOF has verified them. Size 0 or less in desc is not checked.
// A blob that is not what its name says is set aside, so that it is absent from
// then on and can be put again.
func (s *Store) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, fi, err := s.openBlob(desc.Digest)
	if err != nil {
		return nil, err
	}
	if desc.Size > 0 && fi.Size() != desc.Size {
		_ = f.Close()
		return nil, corrupt(desc.Digest, "it has %d bytes, its descriptor says %d (pull or build it again)", fi.Size(), desc.Size)
	}
	return &verifier{s: s, f: f, info: fi, want: desc.Digest, h: desc.Digest.Algorithm().Hash()}, nil
}

// verifyBlob hashes a blob and changes nothing. It asks ctx now and then.
func (s *Store) verifyBlob(ctx context.Context, d digest.Digest) error {
	f, fi, err := s.openBlob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	v := &verifier{f: f, info: fi, want: d, h: d.Algorithm().Hash()}
	_, err = v.WriteTo(writerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return len(p), nil
	}))
	return err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// OpenFresh opens the file of a blob whose bytes this Store digested when it put them; false for every other. Whoever reads it
// relies on that: unlike Open it does not verify.
func (s *Store) OpenFresh(desc ocispec.Descriptor) (*os.File, bool) {
	s.mu.Lock()
	_, ok := s.fresh[desc.Digest]
	s.mu.Unlock()
	if !ok {
		return nil, false
	}
	f, fi, err := s.openBlob(desc.Digest)
	if err != nil {
		return nil, false
	}
	if fi.Size() != desc.Size {
		_ = f.Close()
		return nil, false
	}
	return f, true
}

// ReadAll returns a blob of at most limit bytes, verified.
func (s *Store) ReadAll(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	rc, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if v, ok := rc.(*verifier); ok && v.info.Size() > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, the limit is %d: %w", desc.Digest, v.info.Size(), limit, ErrInvalid)
	}
	return io.ReadAll(rc)
}

// verifier hashes what is read.
type verifier struct {
	s    *Store
	f    *os.File
	info fs.FileInfo
	want digest.Digest
	h    hash.Hash
	read int64
	end  error // io.EOF or what is wrong, once known
}

// Read implements io.Reader. The verdict comes with the last bytes when they are
// wrong, so that a reader which knows the length and stops there sees it.
func (v *verifier) Read(p []byte) (int, error) {
	if v.end != nil {
		return 0, v.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := v.f.Read(p)
	v.h.Write(p[:n])
	v.read += int64(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("reading blob %s (%s): %w", v.want, v.f.Name(), err)
	case err == nil && v.read < v.info.Size():
		return n, nil
	}
	if v.verify(); errors.Is(v.end, io.EOF) && n > 0 {
		return n, nil
	}
	return n, v.end
}

// WriteTo implements io.WriterTo with large reads.
func (v *verifier) WriteTo(w io.Writer) (int64, error) {
	buf, _ := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, err := v.Read(buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
			if m < n {
				return total, io.ErrShortWrite
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (v *verifier) verify() {
	got := digest.NewDigest(v.want.Algorithm(), v.h)
	if got == v.want {
		v.end = io.EOF
		return
	}
	v.end = corrupt(v.want, "its %d bytes are %s (pull or build it again)", v.read, got)
	if v.s == nil || v.s.readOnly {
		return
	}
	// Nobody who holds gc.lock reads through a verifier with a store: that would wait for itself.
	leave, err := v.s.using(context.Background())
	if err != nil {
		return
	}
	defer leave()
	// An error changes nothing for the reader: Check finds the blob again.
	_ = v.s.setAside(v.want, v.info)
}

// Close implements io.Closer. It does not verify what was not read.
func (v *verifier) Close() error { return v.f.Close() }

// setAside moves a damaged blob out of the way, if it is still the same file.
// The caller holds gc.lock.
func (s *Store) setAside(d digest.Digest, seen fs.FileInfo) error {
	path := s.Path(d)
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !os.SameFile(now, seen) {
		return nil
	}
	// A directory of its own makes the name free, for directories too.
	dir, err := os.MkdirTemp(s.path(damagedDir), d.Algorithm().String()+"-*")
	if err != nil {
		return storageError(s.path(damagedDir), 0, err)
	}
	err = os.Rename(path, dir+string(os.PathSeparator)+d.Encoded())
	if isCrossDevice(err) {
		err = os.RemoveAll(path)
		_ = os.Remove(dir)
	}
	return err
}

// ReaderAt is random access to a blob, unverified.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

type readerAt struct {
	*os.File
	size int64
}

// Size is the blob's size in bytes.
func (r readerAt) Size() int64 { return r.size }

// OpenAt opens a blob for random access.
func (s *Store) OpenAt(d digest.Digest) (ReaderAt, error) {
	f, fi, err := s.openBlob(d)
	if err != nil {
		return nil, err
	}
	return readerAt{File: f, size: fi.Size()}, nil
}

// Stat returns the blob's size; ErrNotFound when it is absent. It leases the blob to this process.
// What cannot be that blob (a directory, an empty file) is set aside and absent.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if err := checkDigest(d); err != nil {
		return 0, err
	}
	if s.isLeased(d) {
		if fi, err := os.Lstat(s.Path(d)); err == nil && plausible(d, fi) {
			return fi.Size(), nil
		}
	}
	leave, err := s.usingToRead()
	if err != nil {
		return 0, err
	}
	defer leave()
	return s.stat(d)
}

// stat is Stat for those who hold gc.lock.
func (s *Store) stat(d digest.Digest) (int64, error) {
	fi, err := os.Lstat(s.Path(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, notFound("blob " + d.String())
	case err != nil:
		return 0, fmt.Errorf("blob %s: %w", d, err)
	case !plausible(d, fi):
		if s.readOnly {
			return 0, corrupt(d, "%s", implausible(fi))
		}
		if err := s.setAside(d, fi); err != nil {
			return 0, errors.Join(corrupt(d, "%s", implausible(fi)), err)
		}
		return 0, notFound("blob " + d.String())
	}
	if err := s.take(d); err != nil && !s.readOnly {
		return 0, err
	}
	if !isDurable(fi) {
		s.noteDirty(d)
	}
	return fi.Size(), nil
}

// plausible reports whether fi can be d at all.
func plausible(d digest.Digest, fi fs.FileInfo) bool {
	return fi.Mode().IsRegular() && (fi.Size() > 0 || d == d.Algorithm().FromBytes(nil))
}

func implausible(fi fs.FileInfo) string {
	if fi.Mode().IsRegular() {
		return "it is empty"
	}
	return "it is " + kindOf(fi.Mode())
}

package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fillKey is a blob of a repository: that another one has it says nothing of whether this one does.
type fillKey struct {
	repo   string
	digest digest.Digest
}

// fill is a blob on its way from another registry, for whoever reads it meanwhile. It begins with the first who reads, and
// goes on without them. The last byte is given out when all of them are verified and on the disk.
type fill struct {
	p    *proxied
	key  fillKey
	size int64

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	users   int
	begun   bool
	done    bool // err says how
	err     error
	file    *os.File // to read; nil before there is one
	written int64
}

// filling is a reader of a blob that somebody reads already; nil when nobody does.
func (p *proxied) filling(key fillKey) io.ReadSeekCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.fills[key]; f != nil {
		return f.reader()
	}
	return nil
}

// fill is a reader of a blob that may come to be fetched.
func (p *proxied) fill(ctx context.Context, key fillKey, size int64) (io.ReadSeekCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fills[key]
	if f == nil {
		// One may have begun and ended since the caller looked: then the blob is kept.
		if kept, err := p.directory.OpenBlob(ctx, key.repo, key.digest); !errors.Is(err, errUnknown) {
			return kept, err
		}
		f = &fill{p: p, key: key, size: size}
		f.changed = sync.NewCond(&f.mu)
		p.fills[key] = f
	}
	return f.reader(), nil
}

// reader adds a user. The proxy's lock is held.
func (f *fill) reader() io.ReadSeekCloser {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	return &fillReader{f: f}
}

// leave takes a user away. The last one closes the file, and who comes later begins anew or finds what was kept.
func (f *fill) leave() (err error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users > 0 {
		return nil
	}
	if f.p.fills[f.key] == f {
		delete(f.p.fills, f.key)
	}
	if f.file != nil {
		err = f.file.Close()
	}
	return err
}

// begin starts to fetch, once. The lock is held.
func (f *fill) begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.users++
	f.p.running.Go(func() {
		err := f.run(f.p.life)
		f.p.mu.Lock()
		if f.p.fills[f.key] == f {
			delete(f.p.fills, f.key) // it was kept, or is to be tried again
		}
		f.p.mu.Unlock()
		f.mu.Lock()
		f.done, f.err = true, err
		f.changed.Broadcast()
		f.mu.Unlock()
		if err := errors.Join(err, f.leave()); err != nil {
			f.p.s.log.Warn("a blob was not fetched", "repo", f.key.repo, "digest", f.key.digest, "error", err)
		}
	})
}

// run fetches the blob.
func (f *fill) run(ctx context.Context) error {
	p := f.p
	keep := p.s.room(ctx, f.size) == nil && p.s.quota.take(f.size) == nil
	if !keep {
		p.s.log.Warn("a blob is not kept: the registry is full", "repo", f.key.repo, "digest", f.key.digest)
	}
	had, err := f.receive(ctx, keep)
	if keep && (err != nil || had) {
		p.s.quota.give(f.size)
	}
	return err
}

func (f *fill) receive(ctx context.Context, keep bool) (had bool, err error) {
	p := f.p
	up, err := p.directory.NewUpload(ctx, f.key.digest.Algorithm())
	if err != nil {
		return false, err
	}
	defer up.Abort()
	file, ok := up.(*fileUpload)
	if !ok {
		return false, errUnsupported
	}
	reading, err := os.Open(file.f.Name())
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	f.file = reading
	f.mu.Unlock()
	r, err := p.ref(f.key.repo, "", f.key.digest)
	if err != nil {
		return false, err
	}
	body, err := p.up.Blob(ctx, r, ocispec.Descriptor{Digest: f.key.digest, Size: f.size})
	if err != nil {
		return false, err
	}
	_, err = io.Copy(fillWriter{f, up}, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return false, err
	}
	if f.written != f.size { // only this goroutine writes it
		return false, fmt.Errorf("%w: it has %d bytes, and not %d", errMismatch, f.written, f.size)
	}
	if !keep {
		return false, nil
	}
	return up.Commit(ctx, f.key.repo, f.key.digest)
}

// fillWriter tells readers how far the blob is.
type fillWriter struct {
	f  *fill
	up upload
}

func (w fillWriter) Write(b []byte) (int, error) {
	n, err := w.up.Write(b)
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.f.written += int64(n)
	w.f.changed.Broadcast()
	return n, err
}

// wait returns how many bytes there are at an offset, when there are some; it begins the fill. 0 is the end.
func (f *fill) wait(offset int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin()
	for {
		switch ready := min(f.written, f.size-1); { // the last byte comes when all is well
		case f.done && f.err != nil:
			return 0, f.err
		case f.done:
			return max(f.size-offset, 0), nil
		case ready > offset:
			return ready - offset, nil
		}
		f.changed.Wait()
	}
}

// fillReader is one who reads a blob while it arrives.
type fillReader struct {
	f      *fill
	offset int64
	closed bool
}

func (r *fillReader) Read(b []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	if len(b) == 0 {
		return 0, nil
	}
	if r.offset >= r.f.size && r.f.size > 0 {
		return 0, io.EOF
	}
	n, err := r.f.wait(r.offset)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	got, err := r.f.file.ReadAt(b[:min(int64(len(b)), n)], r.offset)
	r.offset += int64(got)
	if got > 0 {
		err = nil
	}
	return got, err
}

func (r *fillReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.f.size
	}
	if offset < 0 {
		return r.offset, fs.ErrInvalid
	}
	r.offset = offset
	return offset, nil
}

func (r *fillReader) Close() error {
	if r.closed {
		return fs.ErrClosed
	}
	r.closed = true
	return r.f.leave()
}

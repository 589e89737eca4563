package serve

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// StatBlob implements storage.
func (d *directory) StatBlob(_ context.Context, repo string, dgst digest.Digest) (int64, error) {
	if _, err := os.Stat(d.repo(repo, linksDir, blobPath(dgst))); err != nil {
		return 0, unknown(err)
	}
	fi, err := os.Stat(d.path(blobsDir, blobPath(dgst)))
	if err != nil {
		return 0, unknown(err)
	}
	return fi.Size(), nil
}

// OpenBlob implements storage.
func (d *directory) OpenBlob(ctx context.Context, repo string, dgst digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := d.StatBlob(ctx, repo, dgst); err != nil {
		return nil, err
	}
	f, err := os.Open(d.path(blobsDir, blobPath(dgst)))
	if err != nil {
		return nil, unknown(err)
	}
	return f, nil
}

// MountBlob implements storage.
func (d *directory) MountBlob(ctx context.Context, repo string, dgst digest.Digest, from string) error {
	d.content.RLock()
	defer d.content.RUnlock()
	if from == "" {
		if _, err := os.Stat(d.path(blobsDir, blobPath(dgst))); err != nil {
			return unknown(err)
		}
		if !d.linkedSomewhere(ctx, dgst) {
			return errUnknown
		}
	} else if _, err := d.StatBlob(ctx, from, dgst); err != nil {
		return err
	}
	return d.link(repo, dgst)
}

func (d *directory) linkedSomewhere(ctx context.Context, dgst digest.Digest) bool {
	repos, err := d.Repos(ctx)
	if err != nil {
		return false
	}
	for _, r := range repos {
		if _, err := os.Stat(d.repo(r, linksDir, blobPath(dgst))); err == nil {
			return true
		}
	}
	return false
}

// link notes durably that a repository has a blob.
func (d *directory) link(repo string, dgst digest.Digest) error {
	name := d.repo(repo, linksDir, blobPath(dgst))
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	if err := makeDir(filepath.Dir(name)); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// DeleteBlob implements storage. The content is collected later: another
// repository may have it, or get it this moment.
func (d *directory) DeleteBlob(_ context.Context, repo string, dgst digest.Digest) error {
	return unknown(remove(d.repo(repo, linksDir, blobPath(dgst))))
}

// fileUpload is a blob that arrives in a file, hashed while it is written.
type fileUpload struct {
	d    *directory
	f    *os.File // nil when ended
	algo digest.Algorithm
	sum  hash.Hash
	size int64

	markSize int64
	markSum  []byte // the state of sum
}

// NewUpload implements storage.
func (d *directory) NewUpload(_ context.Context, algo digest.Algorithm) (upload, error) {
	f, err := os.CreateTemp(d.path(uploadsDir), "upload-*")
	if err != nil {
		return nil, err
	}
	u := &fileUpload{d: d, f: f, algo: algo, sum: algo.Hash()}
	if err := u.Mark(); err != nil {
		u.Abort()
		return nil, err
	}
	return u, nil
}

func (u *fileUpload) Write(p []byte) (int, error) {
	n, err := u.f.Write(p)
	_, _ = u.sum.Write(p[:n])
	u.size += int64(n)
	return n, err
}

// Mark implements upload.
func (u *fileUpload) Mark() error {
	state, ok := u.sum.(encoding.BinaryMarshaler)
	if !ok {
		return fmt.Errorf("the state of %s cannot be kept", u.algo)
	}
	sum, err := state.MarshalBinary()
	u.markSize, u.markSum = u.size, sum
	return err
}

// Rewind implements upload.
func (u *fileUpload) Rewind() error {
	state, ok := u.sum.(encoding.BinaryUnmarshaler)
	if !ok {
		return errUnsupported
	}
	if err := state.UnmarshalBinary(u.markSum); err != nil {
		return err
	}
	if err := u.f.Truncate(u.markSize); err != nil {
		return err
	}
	_, err := u.f.Seek(u.markSize, io.SeekStart)
	u.size = u.markSize
	return err
}

// digest is the digest by an algorithm: the one that was kept on the way, or
// another that only the last request named.
func (u *fileUpload) digest(algo digest.Algorithm) (digest.Digest, error) {
	if algo == u.algo {
		return digest.NewDigest(algo, u.sum), nil
	}
	if _, err := u.f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return algo.FromReader(u.f)
}

// Commit implements upload. A blob that is there is replaced: the same bytes, or
// better ones.
func (u *fileUpload) Commit(_ context.Context, repo string, want digest.Digest) (had bool, err error) {
	if u.f == nil {
		return false, fs.ErrClosed
	}
	defer u.Abort()
	got, err := u.digest(want.Algorithm())
	if err != nil {
		return had, err
	}
	if got != want {
		return false, errMismatch
	}
	if err := u.f.Sync(); err != nil {
		return had, err
	}
	if err := u.f.Close(); err != nil {
		return had, err
	}
	u.d.content.RLock()
	defer u.d.content.RUnlock()
	defer u.d.arrive.lock(want.String())()
	name := u.d.path(blobsDir, blobPath(want))
	if had, err = exists(name); err != nil {
		return false, err
	}
	if err := makeDir(filepath.Dir(name)); err != nil {
		return had, err
	}
	if err := os.Rename(u.f.Name(), name); err != nil {
		return had, err
	}
	u.f = nil
	if err := syncDir(filepath.Dir(name)); err != nil {
		return had, err
	}
	return had, u.d.link(repo, want)
}

// Abort implements upload.
func (u *fileUpload) Abort() {
	if u.f == nil {
		return
	}
	if err := u.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		u.d.log.Debug("dropping an upload", "error", err)
	}
	_ = os.Remove(u.f.Name())
	u.f = nil
}

package serve

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// StatBlob implements storage.
func (s *stored) StatBlob(_ context.Context, _ string, d digest.Digest) (int64, error) {
	n, err := s.s.Stat(d)
	return n, unknownInStore(err)
}

// OpenBlob implements storage.
func (s *stored) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if _, err := s.StatBlob(ctx, repo, d); err != nil { // also leases it
		return nil, err
	}
	f, err := os.Open(s.s.Path(d))
	if err != nil {
		return nil, unknown(err)
	}
	return f, nil
}

// MountBlob implements storage.
func (s *stored) MountBlob(ctx context.Context, repo string, d digest.Digest, _ string) error {
	_, err := s.StatBlob(ctx, repo, d)
	return err
}

// DeleteBlob implements storage.
func (s *stored) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	if _, err := s.StatBlob(ctx, repo, d); err != nil {
		return err
	}
	return errUnsupported
}

// storedUpload is a blob that arrives in the store. What was written cannot be
// taken back.
type storedUpload struct {
	s  *stored
	in *store.Ingest // nil until the first byte: most sessions wait for one
}

// NewUpload implements storage.
func (s *stored) NewUpload(ctx context.Context, _ digest.Algorithm) (upload, error) {
	return &storedUpload{s: s}, ctx.Err()
}

func (u *storedUpload) begin() (err error) {
	if u.in == nil {
		u.in, err = u.s.s.Ingest(context.Background()) //nolint:forbidigo // outlives the request that begins it
	}
	return err
}

func (u *storedUpload) Write(p []byte) (int, error) {
	if err := u.begin(); err != nil {
		return 0, err
	}
	return u.in.Write(p)
}

// Mark implements upload.
func (u *storedUpload) Mark() error { return nil }

// Rewind implements upload: nothing can be taken back, but of nothing.
func (u *storedUpload) Rewind() error {
	if u.in == nil {
		return nil
	}
	return errUnsupported
}

// Abort implements upload.
func (u *storedUpload) Abort() {
	if u.in != nil {
		u.in.Abort()
	}
}

// Commit implements upload. Bytes under another digest than the store's usual
// one are stored again under that.
func (u *storedUpload) Commit(ctx context.Context, _ string, want digest.Digest) (had bool, err error) {
	if err := u.begin(); err != nil { // an empty blob
		return false, err
	}
	if had, err = exists(u.s.s.Path(want)); err != nil {
		return false, err
	}
	got, err := u.in.Commit(ctx, "application/octet-stream")
	if err != nil {
		return false, err
	}
	if got.Digest == want {
		return had, u.s.s.Sync(ctx)
	}
	if want.Algorithm() == got.Digest.Algorithm() {
		return false, errMismatch
	}
	rc, err := u.s.s.Open(ctx, got)
	if err != nil {
		return false, err
	}
	defer rc.Close()
	got.Digest = want
	switch err := u.s.s.PutExpected(ctx, got, rc); {
	case errors.Is(err, store.ErrCorrupt):
		return false, errMismatch
	case err != nil:
		return false, err
	}
	return had, u.s.s.Sync(ctx)
}

// Usage implements storage.
func (s *stored) Usage(ctx context.Context) (int64, error) {
	return usage(ctx, filepath.Join(s.s.Root(), "blobs"))
}

// Collect implements storage: that is what `store gc` does.
func (s *stored) Collect(context.Context) (int64, error) { return 0, nil }

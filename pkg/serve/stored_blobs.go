package serve

import (
	"context"
	"errors"
	"io"
	"os"

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
	in *store.Ingest
}

// NewUpload implements storage.
func (s *stored) NewUpload(ctx context.Context, _ digest.Algorithm) (upload, error) {
	in, err := s.s.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	return &storedUpload{s: s, in: in}, nil
}

func (u *storedUpload) Write(p []byte) (int, error) { return u.in.Write(p) }
func (u *storedUpload) Mark() error                 { return nil }
func (u *storedUpload) Rewind() error               { return errUnsupported }
func (u *storedUpload) Abort()                      { u.in.Abort() }

// Commit implements upload. Bytes under another digest than the store's usual
// one are stored again under that.
func (u *storedUpload) Commit(ctx context.Context, _ string, want digest.Digest) error {
	got, err := u.in.Commit(ctx, "application/octet-stream")
	if err != nil {
		return err
	}
	if got.Digest == want {
		return u.s.s.Sync(ctx)
	}
	if want.Algorithm() == got.Digest.Algorithm() {
		return errMismatch
	}
	rc, err := u.s.s.Open(ctx, got)
	if err != nil {
		return err
	}
	defer rc.Close()
	got.Digest = want
	switch err := u.s.s.PutExpected(ctx, got, rc); {
	case errors.Is(err, store.ErrCorrupt):
		return errMismatch
	case err != nil:
		return err
	}
	return u.s.s.Sync(ctx)
}

package serve

import (
	"errors"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// unknownIn turns errUnknown into the refusal for a thing of a repository: the
// repository's own, when it is not there either.
func (s *Server) unknownIn(r *http.Request, repo string, err error, thing *apiError) error {
	if !errors.Is(err, errUnknown) {
		return err
	}
	if has, herr := s.content.HasRepo(r.Context(), repo); herr == nil && !has {
		return codeNameUnknown
	}
	return thing
}

// getBlob serves a blob, whole or in ranges (RFC 9110, section 14).
func (s *Server) getBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	f, err := s.content.OpenBlob(r.Context(), rt.repo, rt.digest)
	if err != nil {
		return s.unknownIn(r, rt.repo, err, codeBlobUnknown)
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", rt.digest.String())
	h.Set("ETag", etag(rt.digest))
	h.Set("Cache-Control", "max-age=31536000")
	pw := s.newPacedWriter(w)
	defer pw.done()
	http.ServeContent(pw, r, "", time.Time{}, f)
	return nil
}

func etag(d digest.Digest) string { return `"` + d.String() + `"` }

func (s *Server) deleteBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	defer s.repos.lock(rt.repo)()
	err := s.content.DeleteBlob(r.Context(), rt.repo, rt.digest)
	if errors.Is(err, errUnsupported) {
		return codeUnsupported.with("blobs of the store are removed by `manifestctl store gc`")
	}
	if err != nil {
		return s.unknownIn(r, rt.repo, err, codeBlobUnknown)
	}
	s.deleted()
	w.WriteHeader(http.StatusAccepted)
	return nil
}

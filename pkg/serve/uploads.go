package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// postUpload begins an upload; it also mounts a blob of another repository, or
// takes a blob whole.
func (s *Server) postUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	if m := q.Get("mount"); m != "" {
		d, bad := parseDigest(m)
		if bad != nil {
			return bad
		}
		from := q.Get("from")
		if from == "" || ref.CheckRepo(from) == nil {
			err := s.content.MountBlob(r.Context(), rt.repo, d, from)
			if err == nil {
				return created(w, rt.repo, d)
			}
			if !errors.Is(err, errUnknown) {
				return err
			}
		}
	}
	var want digest.Digest
	if v := q.Get("digest"); v != "" && q.Get("mount") == "" {
		d, bad := parseDigest(v)
		if bad != nil {
			return bad
		}
		want = d
	}
	if s.sessions.full() {
		return codeTooMany
	}
	if err := s.fits(r.Context(), r.ContentLength); err != nil {
		return err
	}
	up, err := s.newUpload(r.Context(), algorithm(want))
	if err != nil {
		return err
	}
	if want != "" {
		defer up.Abort()
		if _, err := receive(up, s.newBody(w, r), r.ContentLength, -1); err != nil {
			return err
		}
		return s.finish(r.Context(), w, up, rt.repo, want)
	}
	se, err := s.sessions.open(rt, up)
	if err != nil {
		up.Abort()
		return err
	}
	se.describe(w)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// describe puts where the upload is, and how far, into the headers.
func (se *session) describe(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Location", "/v2/"+se.repo+"/blobs/uploads/"+se.id)
	h.Set("Docker-Upload-UUID", se.id)
	h.Set("Range", "0-"+strconv.FormatInt(max(se.offset.Load()-1, 0), 10))
}

func created(w http.ResponseWriter, repo string, d digest.Digest) error {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) getUpload(w http.ResponseWriter, _ *http.Request, rt route) error {
	se, err := s.sessions.get(rt)
	if err != nil {
		return err
	}
	se.describe(w)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) deleteUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	se, err := s.sessions.acquire(r.Context(), rt)
	if err != nil {
		return err
	}
	defer se.release()
	se.end()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// patchUpload takes a piece, or a stream of unknown length.
func (s *Server) patchUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	se, err := s.sessions.acquire(r.Context(), rt)
	if err != nil {
		return err
	}
	defer se.release()
	if err := s.append(w, r, se); err != nil {
		return err
	}
	se.describe(w)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// putUpload ends an upload, perhaps with its last piece.
func (s *Server) putUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	want, bad := parseDigest(q.Get("digest"))
	if bad != nil {
		return bad
	}
	se, err := s.sessions.acquire(r.Context(), rt)
	if err != nil {
		return err
	}
	defer se.release()
	if err := s.append(w, r, se); err != nil {
		return err
	}
	// Whatever comes of it, the upload is over.
	defer se.end()
	return s.finish(r.Context(), w, se.up, rt.repo, want)
}

func (s *Server) finish(ctx context.Context, w http.ResponseWriter, up upload, repo string, want digest.Digest) error {
	_, err := up.Commit(ctx, repo, want)
	switch {
	case errors.Is(err, errMismatch):
		return codeDigestInvalid.with(fmt.Sprintf("what was uploaded is not %s", want))
	case errors.Is(err, errUnsupported):
		return codeDigestInvalid.with("the store does not keep digests of this algorithm")
	case err != nil:
		return err
	}
	return created(w, repo, want)
}

// append adds the body of a request to the upload, all of it or nothing. When
// nothing can be taken back any more, the upload is over.
func (s *Server) append(w http.ResponseWriter, r *http.Request, se *session) error {
	announced := int64(-1)
	if v := r.Header.Get("Content-Range"); v != "" {
		start, end, ok := contentRange(v)
		switch {
		case !ok:
			return codeUploadInvalid.with("malformed Content-Range")
		case start != se.offset.Load():
			se.describe(w)
			return codeUploadRange
		}
		announced = end - start + 1
		if r.ContentLength >= 0 && r.ContentLength != announced {
			se.describe(w)
			return codeSizeInvalid.with("Content-Range and Content-Length differ").as(http.StatusRequestedRangeNotSatisfiable)
		}
	}
	if err := s.fits(r.Context(), max(r.ContentLength, announced)); err != nil {
		return err
	}
	if err := se.up.Mark(); err != nil {
		return err
	}
	n, err := receive(se.up, s.newBody(w, r), r.ContentLength, announced)
	if err == nil {
		se.offset.Add(n)
		return nil
	}
	if se.up.Rewind() != nil {
		se.end()
	}
	return err
}

// receive copies a body. A body that ends before its length, or is not as long
// as announced (-1: not), is refused.
func receive(to io.Writer, b *body, length, announced int64) (int64, error) {
	src := io.Reader(b)
	if announced >= 0 {
		src = io.LimitReader(src, announced+1)
	}
	buf := buffers.Get().(*[bufferSize]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer buffers.Put(buf)
	n, err := io.CopyBuffer(onlyWriter{to}, src, buf[:])
	switch {
	case b.fail != nil:
		return n, codeUploadInvalid.with("the request was cut short")
	case err != nil:
		return n, err
	case length >= 0 && n != length || announced >= 0 && n != announced:
		return n, codeSizeInvalid
	}
	return n, nil
}

// contentRange reads START-END as the distribution specification writes it, or
// "bytes START-END/..." as HTTP does.
func contentRange(s string) (start, end int64, ok bool) {
	s = strings.TrimPrefix(s, "bytes ")
	s, _, _ = strings.Cut(s, "/")
	a, b, ok := strings.Cut(s, "-")
	if !ok || !digits(a) || !digits(b) {
		return 0, 0, false
	}
	start, err1 := strconv.ParseInt(a, 10, 64)
	end, err2 := strconv.ParseInt(b, 10, 64)
	return start, end, err1 == nil && err2 == nil && end >= start && end-start < 1<<62
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// pageLink is the Link header of the next page.
func pageLink(path string, q url.Values) string {
	return "<" + (&url.URL{Path: path, RawQuery: q.Encode()}).String() + `>; rel="next"`
}

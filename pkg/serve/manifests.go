package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// maxTagsAtOnce is how many tags one push may set.
const maxTagsAtOnce = 100

// getManifest serves a manifest as it was pushed, under the type it was pushed as.
// The Accept header is not looked at: nothing is converted.
func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	d := rt.digest
	if rt.tag != "" {
		desc, err := s.content.Resolve(r.Context(), rt.repo, rt.tag)
		if err != nil {
			return s.unknownIn(r, rt.repo, err, codeManifestUnknown.with("tag "+rt.tag+" unknown to registry"))
		}
		d = desc.Digest
	}
	desc, raw, err := s.content.Manifest(r.Context(), rt.repo, d)
	if err != nil {
		return s.unknownIn(r, rt.repo, err, codeManifestUnknown)
	}
	h := w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", etag(d))
	if matches(r.Header.Values("If-None-Match"), d) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", desc.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	pw := s.newPacedWriter(w)
	defer pw.done()
	_, _ = pw.Write(raw)
	return nil
}

// matches reports whether d, "" for nothing, is among the entity tags of a
// condition (RFC 9110, section 13.1).
func matches(values []string, d digest.Digest) bool {
	for _, tag := range strings.Split(strings.Join(values, ","), ",") {
		tag = strings.TrimSpace(tag)
		if d != "" && (tag == "*" || tag == etag(d) || tag == d.String()) {
			return true
		}
	}
	return false
}

// condition checks If-Match and If-None-Match against what a name points at now.
func condition(r *http.Request, current digest.Digest) error {
	if v := r.Header.Values("If-Match"); len(v) > 0 && !matches(v, current) {
		return codePrecondition.with(fmt.Sprintf("it is %s now", orNothing(current)))
	}
	if v := r.Header.Values("If-None-Match"); len(v) > 0 && matches(v, current) {
		return codePrecondition.with("it exists")
	}
	return nil
}

func orNothing(d digest.Digest) string {
	if d == "" {
		return "nothing"
	}
	return d.String()
}

// current is the digest that a manifest's route points at, or "".
func (s *Server) current(ctx context.Context, rt route) (digest.Digest, error) {
	if rt.tag != "" {
		desc, err := s.content.Resolve(ctx, rt.repo, rt.tag)
		if errors.Is(err, errUnknown) {
			return "", nil
		}
		return desc.Digest, err
	}
	has, err := s.content.HasManifest(ctx, rt.repo, rt.digest)
	if !has {
		return "", err
	}
	return rt.digest, nil
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	doc, err := s.readDocument(w, r)
	if err != nil {
		return err
	}
	var tags []string
	if rt.tag != "" {
		tags = []string{rt.tag}
	} else {
		if got := rt.digest.Algorithm().FromBytes(doc.raw); got != rt.digest {
			return codeDigestInvalid.with(fmt.Sprintf("the manifest is %s", got))
		}
		doc.Digest = rt.digest
		tags = q["tag"]
	}
	if len(tags) > maxTagsAtOnce {
		return codeTagInvalid.with(fmt.Sprintf("%d tags at once: at most %d are allowed", len(tags), maxTagsAtOnce))
	}
	for _, t := range tags {
		if err := ref.CheckTag(t); err != nil {
			return codeTagInvalid.with(err.Error())
		}
	}
	if err := s.commit(r, rt, doc, tags); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", "/v2/"+rt.repo+"/manifests/"+doc.Digest.String())
	h.Set("Docker-Content-Digest", doc.Digest.String())
	h.Set("ETag", etag(doc.Digest))
	if doc.subject != "" {
		h.Set("OCI-Subject", doc.subject.String())
	}
	if rt.tag == "" {
		for _, t := range tags {
			h.Add("OCI-Tag", t)
		}
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// commit checks and stores, while nothing else changes the repository.
func (s *Server) commit(r *http.Request, rt route, doc *document, tags []string) error {
	defer s.repos.lock(rt.repo)()
	now, err := s.current(r.Context(), rt)
	if err != nil {
		return err
	}
	if err := condition(r, now); err != nil {
		return err
	}
	if !s.sparse {
		if err := s.complete(r.Context(), rt.repo, doc); err != nil {
			return err
		}
	}
	return s.putDocument(r.Context(), rt.repo, doc, tags)
}

// readDocument reads and parses the body, which is short enough to be kept.
func (s *Server) readDocument(w http.ResponseWriter, r *http.Request) (*document, error) {
	limit := s.limits.manifest()
	if r.ContentLength > limit {
		return nil, tooLong(limit)
	}
	var buf bytes.Buffer
	if _, err := receive(&limitedBuffer{&buf, limit}, s.newBody(w, r), r.ContentLength, -1); err != nil {
		return nil, err
	}
	doc, err := parseDocument(r.Header.Get("Content-Type"), buf.Bytes())
	if err != nil {
		return nil, codeManifestInvalid.with("manifest invalid: " + err.Error())
	}
	return doc, nil
}

func tooLong(limit int64) error {
	return codeManifestTooLarge.with(fmt.Sprintf("the manifest is larger than %d bytes, the most that this registry takes", limit))
}

type limitedBuffer struct {
	buf   *bytes.Buffer
	limit int64
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if int64(l.buf.Len()+len(p)) > l.limit {
		return 0, tooLong(l.limit)
	}
	return l.buf.Write(p)
}

// complete reports what a manifest names and the repository does not hold.
func (s *Server) complete(ctx context.Context, repo string, doc *document) error {
	for _, n := range doc.needs {
		size, err := s.content.StatBlob(ctx, repo, n.digest)
		if n.child && errors.Is(err, errUnknown) {
			var has bool
			if has, err = s.content.HasManifest(ctx, repo, n.digest); has {
				continue
			}
			if err == nil {
				err = errUnknown
			}
		}
		switch {
		case errors.Is(err, errUnknown):
			return codeManifestBlob.with(fmt.Sprintf("%s %s is not in the repository", n.what, n.digest))
		case err != nil:
			return err
		case !n.child && size != n.size:
			return codeManifestInvalid.with(fmt.Sprintf("%s %s has %d bytes, and the manifest says %d", n.what, n.digest, size, n.size))
		}
	}
	return nil
}

// deleteManifest removes a tag, or a manifest with every tag on it. That an index
// names the manifest does not protect it: what is still used is the client's to know.
func (s *Server) deleteManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	defer s.repos.lock(rt.repo)()
	now, err := s.current(r.Context(), rt)
	if err != nil {
		return err
	}
	if err := condition(r, now); err != nil {
		return err
	}
	if rt.tag != "" {
		err = s.content.DeleteTag(r.Context(), rt.repo, rt.tag)
	} else {
		err = s.content.DeleteManifest(r.Context(), rt.repo, rt.digest)
	}
	if err != nil {
		return s.unknownIn(r, rt.repo, err, codeManifestUnknown)
	}
	s.deleted()
	w.WriteHeader(http.StatusAccepted)
	return nil
}

package serve

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxPage is how many entries one page holds at most.
	maxPage = 10_000
	// maxReferrers is how many descriptors one page holds; annotations make them long.
	maxReferrers = 500
)

// page cuts a sorted list by the parameters n and last. more is the last entry
// given when others follow.
func page(q url.Values, list []string, less func(a, b string) int) (out []string, more string, err error) {
	n := maxPage
	if q.Has("n") {
		v := q.Get("n")
		if !digits(v) {
			return nil, "", codePage
		}
		// A number too long for an int is a request for everything.
		if asked, err := strconv.Atoi(v); err == nil {
			n = min(asked, maxPage)
		}
	}
	if last := q.Get("last"); last != "" {
		at, found := slices.BinarySearchFunc(list, last, less)
		if found {
			at++
		}
		list = list[at:]
	}
	if n < len(list) {
		list = list[:n]
		if n > 0 {
			more = list[n-1]
		}
	}
	return list, more, nil
}

// lexical is the order of the distribution specification 1.1: case-insensitive;
// bytes decide between equals.
func lexical(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

func (s *Server) getTags(w http.ResponseWriter, r *http.Request, rt route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	if has, err := s.content.HasRepo(r.Context(), rt.repo); err != nil || !has {
		return cmp.Or[error](err, codeNameUnknown)
	}
	tags, err := s.content.Tags(r.Context(), rt.repo)
	if errors.Is(err, errUnknown) {
		return codeNameUnknown
	}
	if err != nil {
		return err
	}
	slices.SortFunc(tags, lexical)
	tags, more, err := page(q, tags, lexical)
	if err != nil {
		return err
	}
	return s.list(w, r, q, more, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{rt.repo, notNil(tags)})
}

func (s *Server) getCatalog(w http.ResponseWriter, r *http.Request, _ route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	repos, err := s.content.Repos(r.Context())
	if err != nil {
		return err
	}
	repos, more, err := page(q, repos, strings.Compare)
	if err != nil {
		return err
	}
	return s.list(w, r, q, more, struct {
		Repositories []string `json:"repositories"`
	}{notNil(repos)})
}

// notNil makes an empty list a [] in JSON.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, q url.Values, more string, doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if more != "" {
		q.Set("last", more)
		w.Header().Set("Link", pageLink(r.URL.Path, q))
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	pw := s.newPacedWriter(w)
	defer pw.done()
	_, _ = pw.Write(body)
	return nil
}

// getReferrers lists the manifests whose subject is the digest. It is never a
// 404: nothing refers to what is not there.
func (s *Server) getReferrers(w http.ResponseWriter, r *http.Request, rt route) error {
	q, err := query(r)
	if err != nil {
		return err
	}
	all, err := s.content.Referrers(r.Context(), rt.repo, rt.digest)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	want, last := q.Get("artifactType"), q.Get("last")
	out := []ocispec.Descriptor{}
	more := ""
	for _, d := range all {
		if want != "" && d.ArtifactType != want || last != "" && string(d.Digest) <= last {
			continue
		}
		if len(out) == maxReferrers {
			more = string(out[len(out)-1].Digest)
			break
		}
		out = append(out, d)
	}
	if want != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	return s.list(w, r, q, more, struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, out})
}

package testregistry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memory is a registry that behaves: blobs and manifests by repository, uploads in pieces, tags in pages, referrers, deletes.
type memory struct {
	dropCut bool

	state     sync.Mutex
	blobs     map[string][]byte      // REPO@DIGEST
	manifests map[string][]byte      // REPO:TAG and REPO@DIGEST
	types     map[string]string      // by digest
	uploads   map[string][]byte      // by session
	writing   map[string]*sync.Mutex // by session: one request writes at a time
	sessions  int
}

func newMemory(dropCut bool) *memory {
	return &memory{dropCut: dropCut, blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, uploads: map[string][]byte{}, writing: map[string]*sync.Mutex{}}
}

func manifestKey(repo, id string) string {
	if strings.Contains(id, ":") {
		return repo + "@" + id
	}
	return repo + ":" + id
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"told to"}]}`, code)
}

// ServeHTTP implements http.Handler.
func (m *memory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	n := len(parts)
	switch {
	case r.URL.Path == "/v2/":
		fmt.Fprint(w, "{}")
	case n >= 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		m.serveUpload(w, r, strings.Join(parts[:n-3], "/"), parts[n-1])
	case n >= 2 && parts[n-2] == "blobs":
		m.serveBlob(w, r, strings.Join(parts[:n-2], "/")+"@"+parts[n-1])
	case n >= 2 && parts[n-2] == "manifests":
		m.serveManifest(w, r, strings.Join(parts[:n-2], "/"), parts[n-1])
	case n >= 2 && parts[n-2] == "referrers":
		m.serveReferrers(w, strings.Join(parts[:n-2], "/"), parts[n-1])
	case n >= 2 && parts[n-2] == "tags":
		m.serveTags(w, r, strings.Join(parts[:n-2], "/"))
	default:
		refuse(w, http.StatusNotFound, "NOT_FOUND")
	}
}

func (m *memory) serveBlob(w http.ResponseWriter, r *http.Request, key string) {
	m.state.Lock()
	b, ok := m.blobs[key]
	if r.Method == http.MethodDelete {
		delete(m.blobs, key)
	}
	m.state.Unlock()
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func (m *memory) putManifest(repo, tag, mediaType string, raw []byte) digest.Digest {
	d := digest.FromBytes(raw)
	m.manifests[repo+"@"+d.String()], m.types[d.String()] = raw, mediaType
	if tag != "" {
		m.manifests[repo+":"+tag] = raw
	}
	return d
}

func (m *memory) serveManifest(w http.ResponseWriter, r *http.Request, repo, id string) {
	if r.Method == http.MethodPut {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		tag := id
		if strings.Contains(id, ":") {
			tag = ""
		}
		m.state.Lock()
		d := m.putManifest(repo, tag, r.Header.Get("Content-Type"), raw)
		m.state.Unlock()
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
		return
	}
	m.state.Lock()
	defer m.state.Unlock()
	raw, ok := m.manifests[manifestKey(repo, id)]
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	d := digest.FromBytes(raw).String()
	if r.Method == http.MethodDelete {
		for key := range m.manifests {
			if key == manifestKey(repo, id) || id == d && strings.HasPrefix(key, repo+":") && bytes.Equal(m.manifests[key], raw) {
				delete(m.manifests, key)
			}
		}
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Docker-Content-Digest", d)
	w.Header().Set("Content-Type", m.types[d])
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(raw)
	}
}

// serveTags answers in pages of n, and without n whole.
func (m *memory) serveTags(w http.ResponseWriter, r *http.Request, repo string) {
	m.state.Lock()
	tags := []string{}
	for key := range m.manifests {
		if tag, ok := strings.CutPrefix(key, repo+":"); ok {
			tags = append(tags, tag)
		}
	}
	m.state.Unlock()
	slices.Sort(tags)
	if last := r.URL.Query().Get("last"); last != "" {
		at, found := slices.BinarySearch(tags, last)
		if found {
			at++
		}
		tags = tags[at:]
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("n")); err == nil && n > 0 && n < len(tags) {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d&last=%s>; rel="next"`, r.URL.Path, n, tags[n-1]))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
}

func (m *memory) serveReferrers(w http.ResponseWriter, repo, subject string) {
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	idx.SchemaVersion = 2
	m.state.Lock()
	for key, raw := range m.manifests {
		var doc struct {
			MediaType    string              `json:"mediaType"`
			ArtifactType string              `json:"artifactType"`
			Subject      *ocispec.Descriptor `json:"subject"`
			Annotations  map[string]string   `json:"annotations"`
		}
		d, ok := strings.CutPrefix(key, repo+"@")
		if !ok || json.Unmarshal(raw, &doc) != nil || doc.Subject == nil || doc.Subject.Digest.String() != subject {
			continue
		}
		idx.Manifests = append(idx.Manifests, ocispec.Descriptor{
			MediaType: cmp.Or(doc.MediaType, m.types[d]), Digest: digest.Digest(d), Size: int64(len(raw)), ArtifactType: doc.ArtifactType, Annotations: doc.Annotations,
		})
	}
	m.state.Unlock()
	slices.SortFunc(idx.Manifests, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(idx)
}

// serveUpload keeps what arrived of a request that was cut, unless it is told otherwise.
func (m *memory) serveUpload(w http.ResponseWriter, r *http.Request, repo, id string) {
	if r.Method == http.MethodPost {
		m.begin(w, r, repo)
		return
	}
	if r.Method == http.MethodPatch || r.Method == http.MethodPut {
		// One whose connection was cut may still be at it.
		m.state.Lock()
		one := m.writing[id]
		if one == nil {
			one = &sync.Mutex{}
			m.writing[id] = one
		}
		m.state.Unlock()
		one.Lock()
		defer one.Unlock()
	}
	m.state.Lock()
	have, ok := m.uploads[id]
	m.state.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	held := func(n int) string { return fmt.Sprintf("0-%d", max(n-1, 0)) }
	if r.Method == http.MethodPatch && r.ContentLength >= 0 {
		if want := fmt.Sprintf("%d-%d", len(have), int64(len(have))+r.ContentLength-1); r.Header.Get("Content-Range") != want {
			w.Header().Set("Range", held(len(have)))
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
			return
		}
	}
	if b, ok := r.Body.(*countedBody); ok && r.Method != http.MethodGet {
		b.at(int64(len(have)))
	}
	body, err := io.ReadAll(r.Body)
	m.state.Lock()
	defer m.state.Unlock()
	if r.Method == http.MethodDelete {
		delete(m.uploads, id)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err != nil && m.dropCut {
		return
	}
	have = append(have[:len(have):len(have)], body...)
	m.uploads[id] = have
	if err != nil {
		return
	}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=c")
	w.Header().Set("Range", held(len(have)))
	switch r.Method {
	case http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		delete(m.uploads, id)
		d := digest.Digest(r.URL.Query().Get("digest"))
		if d.Validate() != nil || d.Algorithm().FromBytes(have) != d {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		m.blobs[repo+"@"+d.String()] = have
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
	}
}

// begin opens a session, or mounts.
func (m *memory) begin(w http.ResponseWriter, r *http.Request, repo string) {
	q := r.URL.Query()
	m.state.Lock()
	defer m.state.Unlock()
	if b, ok := m.blobs[q.Get("from")+"@"+q.Get("mount")]; ok {
		m.blobs[repo+"@"+q.Get("mount")] = b
		w.WriteHeader(http.StatusCreated)
		return
	}
	m.sessions++
	id := fmt.Sprintf("session-%d", m.sessions)
	m.uploads[id] = nil
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=a%2Fb")
	w.WriteHeader(http.StatusAccepted)
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's names of what OCI calls manifest and index, and the artifact manifest
// that was in drafts of OCI 1.1.
const (
	dockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex      = "application/vnd.docker.distribution.manifest.list.v2+json"
	artifactManifest = "application/vnd.oci.artifact.manifest.v1+json"
)

// maxGuess is the size in bytes up to which a blob of unknown type is looked at.
const maxGuess = 4 << 20

// role is what a descriptor is to the document that holds it.
type role int

const (
	roleRoot    role = iota // of a ref, lease or record: type known from the descriptor or not at all
	roleChild               // of an index
	roleSubject             // what a referrer is about
	roleConfig              // a leaf
	roleLayer               // a leaf
)

func (r role) String() string {
	return [...]string{"root", "manifest", "subject", "config", "layer"}[r]
}

// edge leads to a blob.
type edge struct {
	desc   ocispec.Descriptor
	role   role
	parent digest.Digest // "" for a root
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerIndex, artifactManifest:
		return true
	}
	return false
}

// document is all that the store understands of an OCI document.
type document struct {
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Subject   *ocispec.Descriptor  `json:"subject"`
}

// errOdd is reported with the edges of a document that is not what its media type
// says. Its bytes are what its author wrote, so that nothing is lost and nothing to mend.
var errOdd = errors.New("not a document of its media type")

// parseDocument returns the edges that leave a document. Where a document is not
// of the form that we know, whatever another reader could take for a descriptor is an edge.
func parseDocument(d digest.Digest, data []byte) ([]edge, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		var any any
		if json.Unmarshal(data, &any) != nil {
			return nil, fmt.Errorf("%w: %w", errOdd, err)
		}
		return descriptorsIn(any, d, nil), fmt.Errorf("%w: %w", errOdd, err)
	}
	var es []edge
	add := func(r role, descs ...ocispec.Descriptor) {
		for _, c := range descs {
			// What has no valid digest cannot be in the store.
			if checkDigest(c.Digest) == nil {
				es = append(es, edge{desc: c, role: r, parent: d})
			}
		}
	}
	if doc.Config != nil {
		add(roleConfig, *doc.Config)
	}
	add(roleLayer, doc.Layers...)
	add(roleLayer, doc.Blobs...)
	add(roleChild, doc.Manifests...)
	if doc.Subject != nil {
		add(roleSubject, *doc.Subject)
	}
	return es, nil
}

// descriptorsIn appends an edge for every "digest" in a JSON value. The decoder
// limits how deep that is.
func descriptorsIn(v any, parent digest.Digest, es []edge) []edge {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			es = descriptorsIn(e, parent, es)
		}
	case map[string]any:
		if s, ok := v["digest"].(string); ok && checkDigest(digest.Digest(s)) == nil {
			// A child: of any type, and it may be missing.
			es = append(es, edge{desc: ocispec.Descriptor{Digest: digest.Digest(s)}, role: roleChild, parent: parent})
		}
		for _, e := range v {
			es = descriptorsIn(e, parent, es)
		}
	}
	return es
}

// walker follows the edges between blobs. Every document is read once, whatever
// the number of paths to it, and there is no recursion: loops and bombs end.
type walker struct {
	s    *Store
	docs map[digest.Digest]parsed
}

type parsed struct {
	edges []edge
	err   error
}

func newWalker(s *Store) *walker { return &walker{s: s, docs: map[digest.Digest]parsed{}} }

// walk visits everything that roots reach, every digest and role once, present
// or not. What is wrong with a document that is there goes to bad, whose error ends the walk.
func (w *walker) walk(ctx context.Context, roots []edge, visit func(edge) error, bad func(error) error) error {
	type key struct {
		d    digest.Digest
		leaf bool
	}
	seen := map[key]bool{}
	todo := roots
	for len(todo) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		leaf := e.role == roleConfig || e.role == roleLayer
		k := key{e.desc.Digest, leaf}
		if seen[k] {
			continue
		}
		seen[k] = true
		if err := visit(e); err != nil {
			return err
		}
		if leaf {
			continue
		}
		es, err := w.edges(ctx, e.desc)
		if err != nil {
			if err := bad(err); err != nil {
				return err
			}
		}
		todo = append(todo[:len(todo):len(todo)], es...)
	}
	return nil
}

// edges reads a document. A missing one has no edges: an index may be sparse.
func (w *walker) edges(ctx context.Context, desc ocispec.Descriptor) ([]edge, error) {
	if p, ok := w.docs[desc.Digest]; ok {
		return p.edges, p.err
	}
	es, err := w.read(ctx, desc)
	if ctx.Err() == nil {
		w.docs[desc.Digest] = parsed{es, err}
	}
	return es, err
}

func (w *walker) read(ctx context.Context, desc ocispec.Descriptor) ([]edge, error) {
	declared := isManifest(desc.MediaType)
	fi, err := os.Lstat(w.s.Path(desc.Digest))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !declared && (!fi.Mode().IsRegular() || fi.Size() > maxGuess || !w.s.looksLikeJSON(desc.Digest)):
		return nil, nil
	case fi.Size() > maxSmall:
		return nil, fmt.Errorf("blob %s: %d bytes are too many for a %s: delete the ref that needs it", desc.Digest, fi.Size(), desc.MediaType)
	}
	data, err := w.s.readVerified(ctx, desc.Digest)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	es, err := parseDocument(desc.Digest, data)
	if !declared {
		return es, nil // no type was promised
	}
	return es, err
}

// looksLikeJSON reports whether a blob begins like an object.
func (s *Store) looksLikeJSON(d digest.Digest) bool {
	f, _, err := s.openBlob(d)
	if err != nil {
		return false
	}
	defer f.Close()
	var start [64]byte
	n, _ := f.Read(start[:])
	return strings.HasPrefix(strings.TrimLeft(string(start[:n]), " \t\r\n"), "{")
}

// readVerified reads a document and changes nothing, so that holders of gc.lock may call it.
func (s *Store) readVerified(ctx context.Context, d digest.Digest) ([]byte, error) {
	f, _, err := s.openBlob(d)
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	data, err := readSmall(s.Path(d))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, corrupt(d, "its %d bytes are %s (pull or build it again)", len(data), got)
	}
	return data, nil
}

// eachBlob calls f for everything below blobs/ that has a digest as its name.
func (s *Store) eachBlob(f func(d digest.Digest, fi fs.FileInfo) error) error {
	algos, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return err
	}
	for _, a := range algos {
		if !a.IsDir() {
			continue
		}
		entries, err := os.ReadDir(s.path(blobsDir, a.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.Algorithm(a.Name()), e.Name())
			if checkDigest(d) != nil {
				continue
			}
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := f(d, fi); err != nil {
				return err
			}
		}
	}
	return nil
}

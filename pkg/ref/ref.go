// Package ref parses every way to name an image (DESIGN.md section 4), once, at
// the edge: registry references, the store, OCI layouts and archives.
package ref

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// ErrInvalid is the kind of every error for a reference that cannot be understood.
var ErrInvalid = errors.New("invalid reference")

// Kind is where a reference points.
type Kind string

// The kinds of references.
const (
	Registry      Kind = "docker"         // HOST[:PORT]/REPO[:TAG][@DIGEST], docker://...
	Store         Kind = "store"          // store:NAME[:TAG]
	OCILayout     Kind = "oci"            // oci:DIR[:TAG][@DIGEST], oci-layout://, ocidir://
	OCIArchive    Kind = "oci-archive"    // oci-archive:FILE[:TAG]
	DockerArchive Kind = "docker-archive" // docker-archive:FILE[:TAG]
)

// Ref is a parsed reference. It is a comparable value.
type Ref struct {
	Kind   Kind
	Host   string        // registry: "docker.io" as written by people; see Endpoint
	Repo   string        // registry: "library/debian"
	Path   string        // layout or archive: directory or file
	Name   string        // store: the name without tag
	Tag    string        // "" when absent; registry and store references without tag and digest get "latest"
	Digest digest.Digest // "" when absent
}

// Parse reads a reference. A registry reference follows docker's rules
// (docker.io and library/ are implied).
func Parse(s string) (Ref, error) { return Ref{}, ErrInvalid }

// ParseTag reads the argument of -t: a name[:tag] that can be both a registry
// reference and a name in the store; no digest.
func ParseTag(s string) (Ref, error) { return Ref{}, ErrInvalid }

// String prints the canonical form; Parse of it gives the same Ref.
func (r Ref) String() string { return "" }

// Familiar prints the short form people write: "debian:bookworm", and is the name of a ref in the store.
func (r Ref) Familiar() string { return "" }

// Package ref parses every way to name an image (DESIGN.md section 4), once, at
// the edge: registry references, the store, OCI layouts and archives.
//
// It does no I/O: whether a directory exists, or what a registry holds, is for
// others to find out.
//
// # Invariants
//
//   - A Ref is a comparable value; two spellings of one place are equal ("debian"
//     and "docker://index.docker.io/library/debian:latest").
//   - [Parse] and [Ref.String] are inverses, and so are Parse and [Ref.Familiar]
//     for registry references (FuzzParse holds them to it).
//   - No part of a registry or store reference can leave its place in a URL or a
//     path: names follow the grammar of the distribution specification.
package ref

import (
	"errors"
	"fmt"
	"strings"

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
	Path   string        // layout or archive: directory or file, as written
	Name   string        // store: the name without tag, in its short form
	Tag    string        // "" when absent; registry and store references without tag and digest get "latest"
	Digest digest.Digest // "" when absent
}

// schemes are the prefixes of references, longest first where one begins another.
var schemes = []struct {
	prefix string
	kind   Kind
}{
	{"docker://", Registry},
	{"store:", Store},
	{"oci-layout://", OCILayout},
	{"ocidir://", OCILayout},
	{"oci-archive:", OCIArchive},
	{"docker-archive:", DockerArchive},
	{"oci:", OCILayout},
}

// splitScheme tells what kind s says it is, and the rest of it.
func splitScheme(s string) (Kind, string) {
	for _, sc := range schemes {
		if rest, ok := strings.CutPrefix(s, sc.prefix); ok {
			return sc.kind, rest
		}
	}
	return Registry, s
}

// Parse reads a reference. A registry reference follows docker's rules
// (docker.io and library/ are implied). In a layout or archive the tag is what
// follows the last colon, if it is a tag; a trailing colon says that the path
// ends there and has no tag.
func Parse(s string) (Ref, error) {
	r, err := parse(s)
	if err != nil {
		return Ref{}, fmt.Errorf("%w %q: %w", ErrInvalid, s, err)
	}
	return r, nil
}

func parse(s string) (Ref, error) {
	kind, rest := splitScheme(s)
	switch kind {
	case Store:
		return parseStore(rest)
	case OCILayout, OCIArchive, DockerArchive:
		return parsePath(kind, rest)
	default:
		for _, scheme := range []string{"http://", "https://"} {
			if bare, ok := strings.CutPrefix(rest, scheme); ok {
				return Ref{}, fmt.Errorf("a reference has no %s: write %q (and --plain-http for a registry without TLS)", scheme, bare)
			}
		}
		if rest == s {
			if err := mistaken(s); err != nil {
				return Ref{}, err
			}
		}
		return parseRegistry(rest)
	}
}

// ParseTag reads the argument of -t: a name[:tag] that can be both a registry
// reference and a name in the store; no digest.
func ParseTag(s string) (Ref, error) {
	r, err := Parse(s)
	switch {
	case err != nil:
		return Ref{}, err
	case r.Kind != Registry:
		return Ref{}, fmt.Errorf("%w %q: a tag is a name like app:1.0 or registry.example/app:1.0, not a place of kind %q (that is for -o)", ErrInvalid, s, r.Kind)
	case r.Digest != "":
		return Ref{}, fmt.Errorf("%w %q: a tag cannot have a digest: the digest is what the build makes", ErrInvalid, s)
	}
	return r, nil
}

// WithTag is r under another tag, and no digest.
func (r Ref) WithTag(tag string) Ref {
	r.Tag, r.Digest = tag, ""
	return r
}

// WithDigest is the manifest or blob d in the same place, and no tag.
func (r Ref) WithDigest(d digest.Digest) Ref {
	r.Tag, r.Digest = "", d
	return r
}

// CheckTag reports what is wrong with a tag, or nil; the error is of kind ErrInvalid.
func CheckTag(tag string) error {
	if err := checkTag(tag); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// CheckRepo reports what is wrong with the name of a repository, or nil; the
// error is of kind ErrInvalid.
func CheckRepo(repo string) error {
	if err := checkRepo(repo); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

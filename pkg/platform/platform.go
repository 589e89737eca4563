// Package platform is the project's one vocabulary for "which machine": it
// parses, normalises, compares and ranks OS/architecture/variant triples.
//
// It does not look at the host (package emulate does) and does no I/O, so every
// other package may import it.
//
// # Invariants
//
//   - A Platform is a comparable value: == means "the same machine", and it is a
//     valid map key. Only [Parse], [FromOCI] and [Normalise] make one.
//   - [Platform.String] and [Parse] are inverses (FuzzParse holds them to it).
package platform

import (
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrInvalid is the kind of every error for a platform that cannot be understood.
var ErrInvalid = errors.New("invalid platform")

// Platform names one machine. The zero value means "no platform": a vertex or
// blob that is the same for all of them.
type Platform struct {
	OS         string
	Arch       string
	Variant    string // normalised: "" for arm64/v8 and amd64/v1, "v7" for plain arm
	OSVersion  string
	OSFeatures string // sorted, joined with "+"
}

// Parse reads "os/arch[/variant]", "os(version+feature)/arch", or a lone
// architecture as containerd does.
func Parse(s string) (Platform, error) { return Platform{}, ErrInvalid }

// ParseList reads comma-separated platforms of several flags, in order, without repeats.
func ParseList(ss ...string) ([]Platform, error) { return nil, ErrInvalid }

// Normalise returns the canonical form of p (x86_64 is amd64, arm64/v8 is arm64).
func Normalise(p Platform) Platform { return p }

// FromOCI converts a descriptor's or config's platform.
func FromOCI(p ocispec.Platform) (Platform, error) { return Platform{}, ErrInvalid }

// OCI returns p as image-spec's type.
func (p Platform) OCI() ocispec.Platform { return ocispec.Platform{} }

// String is the inverse of Parse.
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// IsZero reports whether p is "no platform".
func (p Platform) IsZero() bool { return p == Platform{} }

// Select returns the index of the best of have for a client that wants want, as
// containerd chooses (exact variant first, then the lower ones it can run); ok is
// false when none fits.
func Select(want Platform, have []Platform) (i int, ok bool) { return 0, false }

// Spellings holds an architecture's name in other vocabularies; a field is ""
// where that vocabulary has no such machine.
type Spellings struct {
	Deb, Uname, GNUTriplet, Rust, APK, RPM, Go string
}

// Spellings returns the other names of p's architecture.
func (p Platform) Spellings() Spellings { return Spellings{} }

// Known lists the platforms of the table in table.go.
func Known() []Platform { return nil }

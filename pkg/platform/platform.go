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
//   - [Platform.String] and [Parse] are inverses (FuzzParse holds them to it),
//     for every operating system and architecture that Parse knows.
//   - What containerd takes for the same machine is equal here.
package platform

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
	OSFeatures string // sorted, joined with "+", each escaped as [Platform.String] does
}

// Normalise returns the canonical form of p (x86_64 is amd64, arm64/v8 is arm64).
func Normalise(p Platform) Platform {
	p.OS = canonicalOS(p.OS)
	p.Arch, p.Variant = canonicalArch(p.Arch, p.Variant)
	if p.OSFeatures != "" {
		p.OSFeatures = joinFeatures(strings.Split(p.OSFeatures, "+"))
	}
	return p
}

// joinFeatures sorts escaped features and leaves out repeats and empty ones.
func joinFeatures(features []string) string {
	features = slices.Clone(features)
	slices.Sort(features)
	features = slices.Compact(features)
	return strings.Join(slices.DeleteFunc(features, func(f string) bool { return f == "" }), "+")
}

// FromOCI converts a descriptor's or config's platform. Names that [Parse] does
// not know are kept, as "unknown/unknown" of an attestation is; a platform without
// operating system or architecture, or with names that could not be printed, is an
// error of kind [ErrInvalid].
func FromOCI(o ocispec.Platform) (Platform, error) {
	p := Platform{OS: o.OS, Arch: o.Architecture, Variant: o.Variant, OSVersion: o.OSVersion}
	fail := func(format string, a ...any) (Platform, error) {
		return Platform{}, fmt.Errorf("%w {os: %.64q, architecture: %.64q, variant: %.64q}: %w",
			ErrInvalid, o.OS, o.Architecture, o.Variant, fmt.Errorf(format, a...))
	}
	switch {
	case p.OS == "":
		return fail("it has no operating system")
	case p.Arch == "":
		return fail("it has no architecture")
	}
	for _, s := range []string{p.OS, p.Arch, p.Variant} {
		if s != "" && !isName(s) {
			return fail("%.64q is not a name: letters, digits, '_', '.' and '-' are allowed", s)
		}
	}
	features := make([]string, len(o.OSFeatures))
	for i, f := range o.OSFeatures {
		features[i] = escape(f)
	}
	p.OSFeatures = joinFeatures(features)
	return Normalise(p), nil
}

// OCI returns p as image-spec's type.
func (p Platform) OCI() ocispec.Platform {
	o := ocispec.Platform{OS: p.OS, Architecture: p.Arch, Variant: p.Variant, OSVersion: p.OSVersion}
	for f := range strings.SplitSeq(p.OSFeatures, "+") {
		if text, err := unescape(f); err == nil && text != "" {
			o.OSFeatures = append(o.OSFeatures, text)
		}
	}
	return o
}

// String is the inverse of Parse: "linux/arm/v7", "windows(10.0.17763+win32k)/amd64".
// It is "" for the zero value.
func (p Platform) String() string {
	if p.IsZero() {
		return ""
	}
	s := p.OS
	if p.OSVersion != "" || p.OSFeatures != "" {
		s += "(" + escape(p.OSVersion)
		if p.OSFeatures != "" {
			s += "+" + p.OSFeatures
		}
		s += ")"
	}
	s += "/" + p.Arch
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// IsZero reports whether p is "no platform".
func (p Platform) IsZero() bool { return p == Platform{} }

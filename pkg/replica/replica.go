// Package replica keeps repositories equal to others, as a file says: skopeo's sync
// file, or one of our own with lists, patterns and versions of tags, platforms and
// limits. What to do is read by [Parse]; [Run] does it.
//
// When it runs is its caller's decision: a run that finds nothing new asks for two
// things for each tag and writes nothing.
//
// # Invariants
//
//   - A file is understood in whole or not at all: an unknown key is an error with
//     its line. No two sources go to one name.
//   - A run that was interrupted, or failed in part, is made good by the next one.
//   - Passwords stand in no report and no error.
package replica

import (
	"errors"
	"regexp"

	"github.com/Masterminds/semver/v3"

	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// ErrInvalid is the kind of every error of a file.
var ErrInvalid = errors.New("invalid sync file")

// Plan is what a file says.
type Plan struct {
	Registries map[string]Registry // by HOST[:PORT]
	Jobs       []Job
	Requests   float64 // requests to registries a second, at most; 0: no limit
	Bytes      int64   // bytes of blobs a second, at most; 0: no limit
}

// Registry is how one registry is spoken to.
type Registry struct {
	Username, Password string
	Insecure           bool   // TLS unverified
	PlainHTTP          bool   // http
	CertDir            string // as one of certs.d
}

// Job is one repository that is kept equal to another.
type Job struct {
	From      ref.Ref // a repository: no tag
	To        ref.Ref
	Select    Select
	Suffix    string              // of tags at the destination
	Platforms []platform.Platform // of indexes: these only; nil: all
	Sparse    bool                // keep indexes as they are where Platforms leaves out children
	Bare      bool                // without referrers and signatures
}

// Select says which tags of a repository. A tag is taken that is listed, matches, or is a version in range; the zero value
// takes all.
type Select struct {
	Names    []string // tags and digests
	Match    *regexp.Regexp
	Versions *semver.Constraints
	Exclude  *regexp.Regexp // not these, whatever else says so; listed ones stay
	Newest   int            // of the versions that were taken, only so many of the highest; 0: all
}

// all reports whether every tag is taken.
func (s Select) all() bool { return len(s.Names) == 0 && s.Match == nil && s.Versions == nil }

// listed reports whether the tags of the repository need not be asked for.
func (s Select) listed() bool { return len(s.Names) > 0 && s.Match == nil && s.Versions == nil }

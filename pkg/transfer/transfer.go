// Package transfer moves images and indexes with everything they reach between
// any two places: registries, the store, OCI layouts, OCI archives and docker
// archives. [Move] is the base: what is copied, merged, pushed or saved is a list
// of [Root]s. [Copy] and [Merge] are the verbs; [Append] changes a tag that other
// writers change too.
//
// It does not decide what an image is: it moves manifests as exact bytes and
// makes new ones only where a subset or a list of sources asks for it.
//
// # Invariants
//
//   - Children are written before what names them, and names last, when everything
//     that was asked for is there. An error leaves every name as it was.
//   - Bytes move once, however often they are named, and not at all when the place
//     has them or its registry can mount them from another repository.
//   - A registry that holds a manifest holds what the manifest reaches: one request
//     answers for all of it. Where a push proves that wrong, it is sent again.
//   - What is written is verified: a blob against its digest, a manifest against
//     its descriptor, and what a registry says it became.
//   - At most [Options].Concurrency transfers run at once, over all images and blobs.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The kinds of errors.
var (
	// ErrConflict says that a tag was not, or is no longer, what it should be: somebody else changed it.
	ErrConflict = errors.New("conflict")
	// ErrInvalid says that what was asked for cannot be done, whatever the places hold.
	ErrInvalid = errors.New("invalid transfer")
	// ErrIncomplete says that a source lacks something that its manifests name.
	ErrIncomplete = errors.New("incomplete image")
)

// Env is what transfers work with. Registry and Store may be nil when no reference is of their kind.
type Env struct {
	Registry *registry.Client
	Store    *store.Store
	Dir      string    // relative layouts and archives are there; "" is the working directory
	Stdout   io.Writer // what an archive named "-" is written to; may be nil
	Now      func() time.Time
}

// opener opens references to read.
func (e Env) opener() *source.Opener {
	return &source.Opener{Registry: e.Registry, Store: e.Store, Dir: e.Dir}
}

// Opener opens references to read, in the places that e has.
func (e Env) Opener() *source.Opener { return e.opener() }

// Options tunes a transfer. The zero value is the recommended one.
type Options struct {
	Platforms   []platform.Platform // of indexes: these only; nil: all
	Sparse      bool                // keep an index as it is where Platforms leaves out children, and let children be missing
	AllTags     bool                // Copy: every tag of the source's repository
	NoClobber   bool                // Copy: leave names that exist at the destination as they are
	Referrers   Referrers           // what refers to what is copied: signatures, SBOMs
	Refresh     bool                // Copy: what the destination has under its name already is not looked at again
	SourceTags  []string            // Copy: all tags of the source's repository, if the caller knows them: they are not asked for
	AllLayers   bool                // layers that are not to be distributed as well
	Concurrency int                 // transfers at once; 0: 32
	DryRun      bool                // change nothing, and say what would be
	Condition   Condition           // of every tag that is written
	Events      event.Sink          // progress; nil: silent. A registry client has its own
	// Pace, if not nil, waits before so many bytes of blobs are read on: a limit.
	Pace func(ctx context.Context, bytes int64) error
}

// Referrers says whether Copy takes along what refers to an image: its referrers, and cosign's tags.
type Referrers int

// The choices.
const (
	WithReferrers Referrers = iota
	NoReferrers
)

// Condition is what a tag must be before it is written; the zero value is none. Where a registry does not check it
// itself, it is checked right before the push.
type Condition struct {
	Match digest.Digest // it points at this
	None  bool          // it does not exist
}

// IsZero reports whether c demands nothing.
func (c Condition) IsZero() bool { return c == Condition{} }

// A Source is what documents and blobs are read from; an opened [source.Image] is one.
type Source interface {
	Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	Ref() ref.Ref
}

var _ Source = source.Image(nil)

// Composite is implemented by sources whose content comes from several places.
type Composite interface {
	Source
	// Origin is where the content with this digest lies. Of what was made here, and lies nowhere yet, it is a source whose
	// Ref is zero.
	Origin(d digest.Digest) Source
}

// originOf is where s has d from.
func originOf(s Source, d digest.Digest) Source {
	if c, ok := s.(Composite); ok {
		return c.Origin(d)
	}
	return s
}

// Root is a manifest or index that is to be somewhere with everything it reaches.
type Root struct {
	Desc ocispec.Descriptor
	Raw  []byte // its exact bytes; nil: From has them
	// From has what it reaches. It may be nil when Parts names every child.
	From Source
	// Parts has, by digest, children that are read elsewhere, with all that they reach.
	Parts map[digest.Digest]Source
	// Names are where it goes: in a registry tags (or, with a digest, only its content), in the store refs, in layouts
	// and archives tags. They may be of different places.
	Names []ref.Ref
	// Subject is set for a referrer: the digest that it refers to, so that a place without a list of referrers gets an
	// index of them under [registry.ReferrersTag].
	Subject digest.Digest
	// Whole names it gets in layouts and archives beside Names, as in docker's and containerd's annotations.
	Whole []ref.Ref
}

// Report is what a transfer did, or with DryRun would do.
type Report struct {
	Roots     []ocispec.Descriptor `json:"roots"` // as they are at the destination
	Manifests int                  `json:"manifests"`
	Blobs     int                  `json:"blobs"`
	Bytes     int64                `json:"bytes"` // of blobs and manifests
	Mounted   int                  `json:"mounted"`
	Skipped   int                  `json:"skipped"`             // manifests and blobs that were there already
	Unchanged int                  `json:"unchanged,omitempty"` // Refresh: names that are what they should be
	Kept      int                  `json:"kept,omitempty"`      // names that existed and were left as they are
	Requests  int64                `json:"requests"`            // to registries; with DryRun also those that a run would make
	Notes     []string             `json:"notes,omitempty"`
}

// Move brings every root, with everything it reaches, to the places of its names. Names are written when all places
// hold everything, in the order of the roots.
func Move(ctx context.Context, env Env, roots []Root, o Options) (Report, error) {
	m := newMover(env, o)
	for _, r := range roots {
		if len(r.Names) == 0 {
			return m.report, fmt.Errorf("%w: %s goes nowhere: name a destination", ErrInvalid, r.Desc.Digest)
		}
	}
	before := env.requests()
	err := m.move(ctx, roots)
	m.report.Requests += env.requests() - before
	return m.report, err
}

func (e Env) requests() int64 {
	if e.Registry == nil {
		return 0
	}
	return e.Registry.Requests()
}

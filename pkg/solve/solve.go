// Package solve runs a graph: every vertex once, as soon as its inputs are there,
// with a step cache. What a vertex does is its [Worker]'s business.
//
// # Invariants
//
//   - Vertices of equal digest run once in a solve, for however many platforms.
//   - A record is written only for work that ended well, and after its layer is in the store.
//   - The error of a solve names what failed first, never what was only cancelled by it.
package solve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Layer is one layer of a result: uncompressed in the store under DiffID, or as it was pulled under Blob, or both; or, if it was
// made here, compressed as Packed only.
type Layer struct {
	DiffID digest.Digest      `json:"diffID"`
	Size   int64              `json:"size,omitempty"` // uncompressed; 0 when unknown
	Blob   ocispec.Descriptor `json:"blob,omitzero"`  // as pulled; zero for layers made here
	From   []string           `json:"from,omitempty"` // registry references whose repository holds Blob
	// Packed is the compressed form that the store keeps of a layer made here in place of the uncompressed one; nil when it keeps
	// that. Unlike Blob it decides nothing about the form that the layer has in images.
	Packed  *ocispec.Descriptor `json:"packed,omitempty"`
	History *ocispec.History    `json:"-"` // of layers made here; follows from the vertex, not from the work
	// Created is when the layer was made: the clock of [Options.Now], kept with the record. It is in no key.
	Created *time.Time `json:"created,omitempty"`
}

// Kept is the blob by which the store keeps a layer made here.
func (l Layer) Kept() digest.Digest {
	if l.Packed != nil {
		return l.Packed.Digest
	}
	return l.DiffID
}

// Result is a rootfs: a chain of layers, bottom first, and the config of the image it began with.
type Result struct {
	Layers []Layer
	Config []byte // raw; nil for scratch
	// More are the outputs of a step beside its rootfs, by their number ([graph.Mount.Output]); nil for most.
	More map[int]Result
}

// Identity identifies the content of r for what is built on it: its layers and its base's config, however they came to be.
func (r Result) Identity() digest.Digest {
	h := digest.Canonical.Digester()
	for _, l := range r.Layers {
		fmt.Fprintln(h.Hash(), l.DiffID)
	}
	if r.Config != nil {
		fmt.Fprintln(h.Hash(), "config", digest.FromBytes(r.Config))
	}
	return h.Digest()
}

// Worker runs vertices. It is safe for concurrent use.
type Worker interface {
	// Key returns the digest of everything v's outcome depends on beyond its own operation: the content
	// that it reads of its inputs and of this machine. "" means that v is never cached.
	Key(ctx context.Context, v *graph.Vertex, inputs []Result) (digest.Digest, error)
	// Run does v's work: inputs[0]'s layers and what v adds to them. The input of a nil vertex is the zero Result.
	Run(ctx context.Context, v *graph.Vertex, inputs []Result) (Result, error)
}

// Prefixer is implemented by workers to whom a key can cost as much as the work, because it needs the content of files.
type Prefixer interface {
	// Prefix is a digest of what v's key is made of and is known without reading; "" when the key costs nothing. Vertices of one
	// key have one prefix.
	Prefix(ctx context.Context, v *graph.Vertex, inputs []Result) (digest.Digest, error)
}

// Prefixes is implemented by caches that know which prefixes their records have. With it a vertex whose prefix was never seen is
// run without asking for its key first, which the work then gives on the way.
type Prefixes interface {
	// Seen reports whether there may be a record with the prefix.
	Seen(ctx context.Context, prefix digest.Digest) bool
	// See is told before a record with the prefix is put.
	See(ctx context.Context, prefix digest.Digest) error
}

// Record is the layers that a vertex added.
type Record struct {
	Name     string          `json:"name,omitempty"`     // "RUN apt-get update", for people
	Platform string          `json:"platform,omitempty"` // it was solved for; "" when it is the same for all
	Layers   []Layer         `json:"layers"`             // on input 0
	More     map[int][]Layer `json:"more,omitempty"`     // on the inputs of its other outputs, by the output's number
}

// Cache holds records by key.
type Cache interface {
	// Get returns false when there is no record, or when what it names is not there any more.
	Get(ctx context.Context, key digest.Digest) (Record, bool)
	Put(ctx context.Context, key digest.Digest, r Record) error
}

// ErrStep is the kind of every [StepError].
var ErrStep = errors.New("step failed")

// StepError says where a build failed. The cause is whatever the worker
// returned, so errors.Is(err, store.ErrNotFound) still sees through it.
type StepError struct {
	Platform platform.Platform // zero for a vertex that is the same for all platforms
	For      string            // the platform a person sees it under; may be ""
	Step     string            // "RUN go build ./...", as the author wrote it
	Source   string            // "rootfs.yaml:12"; never empty
	Excerpt  *graph.Excerpt    // the step in its file; may be nil
	Err      error
}

func (e *StepError) Error() string {
	where := e.For
	if where == "" && !e.Platform.IsZero() {
		where = e.Platform.String()
	}
	if where != "" && !strings.HasPrefix(e.Step, "[") { // a Dockerfile's steps name their platform where there are several
		where = "[" + where + "] "
	} else {
		where = ""
	}
	return fmt.Sprintf("%s: %s%s: %v", e.Source, where, e.Step, e.Err)
}

// Lines are the lines in question, as messages show them.
func (e *StepError) Lines() *graph.Excerpt { return e.Excerpt }

// Unwrap gives the worker's error.
func (e *StepError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrStep) true.
func (e *StepError) Is(target error) bool { return target == ErrStep }

// recordVersion is part of every key: a change of what a step leaves behind for the same inputs must change it.
const recordVersion = "2"

// recordKey is the key of v's record: its operation, its platform and what it depends on.
func recordKey(v *graph.Vertex, content digest.Digest) (digest.Digest, error) {
	b, err := json.Marshal(struct {
		Version  string            `json:"version"`
		Kind     string            `json:"kind"`
		Op       graph.Op          `json:"op"`
		Platform platform.Platform `json:"platform"`
		Content  digest.Digest     `json:"content"`
	}{recordVersion, v.Op.Kind(), keyedOp(v.Op), v.Platform, content})
	if err != nil {
		return "", fmt.Errorf("making the key of %q: %w", v.Meta.Name, err)
	}
	return digest.FromBytes(b), nil
}

// keyedOp is what of op decides whether a record is a hit.
func keyedOp(op graph.Op) graph.Op {
	if k, ok := op.(graph.Keyed); ok {
		return k.ForKey()
	}
	return op
}

// With returns r with one more layer on top.
func (r Result) With(l Layer) Result {
	out := make([]Layer, len(r.Layers)+1) // exactly: chains are long, and layers no small things
	copy(out, r.Layers)
	out[len(r.Layers)] = l
	return Result{Layers: out, Config: r.Config}
}

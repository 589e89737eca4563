// Package solve runs a graph: every vertex once, as soon as its inputs are there,
// with a step cache. What a vertex does is its Worker's business.
package solve

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// Layer is one layer of a result: uncompressed in the store under DiffID, or as it was pulled under Blob, or both.
type Layer struct {
	DiffID  digest.Digest      `json:"diffID"`
	Size    int64              `json:"size"`           // uncompressed; 0 when unknown
	Blob    ocispec.Descriptor `json:"blob,omitempty"` // as pulled; zero for layers made here
	From    []string           `json:"from,omitempty"` // registry references whose repository holds Blob
	History *ocispec.History   `json:"history,omitempty"`
}

// Result is a rootfs: a chain of layers, and the config of the image it began with.
type Result struct {
	Key    digest.Digest // identifies it for what is built on it
	Layers []Layer
	Config []byte // raw; nil for scratch
}

// Worker runs vertices.
type Worker interface {
	// Key returns what distinguishes runs of v beyond its definition and its inputs' keys: the resolved digest of
	// a base image, the content of sources. "" is nothing.
	Key(ctx context.Context, v *graph.Vertex, inputs []Result) (digest.Digest, error)
	// Run does v's work. A nil input is scratch.
	Run(ctx context.Context, v *graph.Vertex, inputs []Result) (Result, error)
}

// Package graph is the immutable DAG between frontends and workers: what to
// build, with no opinion on how. It does no I/O.
//
// # Invariants
//
//   - Two vertices with the same digest are the same work: [Meta] (names,
//     source lines) is never part of a digest.
//   - A vertex whose Platform is zero gives the same layer for every platform.
package graph

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Vertex is one operation on the results of its inputs. Input 0 is the rootfs
// that the operation starts from; nil there is scratch. Vertices are made by
// [New] and never change.
type Vertex struct {
	Op       Op
	Inputs   []*Vertex
	Platform platform.Platform // zero where the operation's outcome does not depend on it
	Meta     Meta

	digest digest.Digest
}

// Meta is what people see of a vertex.
type Meta struct {
	Name    string // "RUN apt-get update", "FILES /usr/bin/hello /etc/hello.conf"
	Source  string // "rootfs.yaml:12"; never empty
	History string // the config's created_by
	Step    int    // 2 of 2/3; 0 when it has none (sources)
	Steps   int
	For     string // the platform a person sees it under; "" when it is shared
	NoCache bool   // run it, whatever was recorded; what it makes is recorded
	Excerpt *Excerpt
}

// New makes a vertex and computes its digest from op, the inputs and p.
func New(op Op, p platform.Platform, meta Meta, inputs ...*Vertex) *Vertex {
	v := &Vertex{Op: op, Inputs: inputs, Platform: p, Meta: meta}
	body := struct {
		Kind     string            `json:"kind"`
		Op       Op                `json:"op"`
		Platform platform.Platform `json:"platform"`
		Inputs   []digest.Digest   `json:"inputs"`
	}{Kind: op.Kind(), Op: op, Platform: p}
	for _, in := range inputs {
		if in == nil {
			body.Inputs = append(body.Inputs, "")
			continue
		}
		body.Inputs = append(body.Inputs, in.digest)
	}
	b, err := json.Marshal(body)
	if err != nil { // only unmarshalable types can fail, and ops have none
		panic(fmt.Sprintf("graph: marshalling %s: %v", op.Kind(), err))
	}
	v.digest = digest.FromBytes(b)
	return v
}

// Digest identifies the vertex's definition, inputs included.
func (v *Vertex) Digest() digest.Digest { return v.digest }

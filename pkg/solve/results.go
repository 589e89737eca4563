package solve

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// This file makes results of records and records of results.

// recordOf is what v added to its inputs.
func recordOf(r Result, inputs []Result, v *graph.Vertex) Record {
	out := Record{Name: v.Meta.Name, Layers: slices.Clone(r.Layers[len(inputOf(inputs, 0).Layers):])}
	if !v.Platform.IsZero() {
		out.Platform = v.Platform.String()
	}
	for i, m := range outputsOf(v) {
		if out.More == nil {
			out.More = map[int][]Layer{}
		}
		out.More[i] = slices.Clone(r.More[i].Layers[len(mountBase(inputs, m).Layers):])
	}
	return out
}

// extend puts the layers that v added on top of its inputs.
func extend(inputs []Result, record Record, v *graph.Vertex) Result {
	r := inputOf(inputs, 0)
	r.More = nil
	r.Layers = added(r.Layers, record.Layers, v)
	for i, m := range outputsOf(v) {
		if r.More == nil {
			r.More = map[int]Result{}
		}
		r.More[i] = Result{Layers: added(mountBase(inputs, m).Layers, record.More[i], v)}
	}
	return r
}

func added(below, layers []Layer, v *graph.Vertex) []Layer {
	out := append(make([]Layer, 0, len(below)+len(layers)), below...)
	for _, l := range layers {
		l.History = &ocispec.History{CreatedBy: v.Meta.History, Comment: "manifestctl"}
		out = append(out, l)
	}
	return out
}

func inputOf(inputs []Result, i int) Result {
	if i >= len(inputs) {
		return Result{}
	}
	return inputs[i]
}

// mountBase is what a mount that is an output begins with.
func mountBase(inputs []Result, m graph.Mount) Result {
	if m.Input == 0 {
		return Result{}
	}
	return inputOf(inputs, m.Input)
}

// outputsOf are v's outputs beside its rootfs.
func outputsOf(v *graph.Vertex) map[int]graph.Mount {
	if op, ok := v.Op.(graph.Exec); ok {
		return op.Outputs()
	}
	return nil
}

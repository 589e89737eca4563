package local

import (
	"context"
	"errors"
	"io"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// merge puts the layers of the inputs on top of each other.
func merge(inputs []solve.Result) solve.Result {
	out := solve.Result{Config: inputAt(inputs, 0).Config}
	for _, in := range inputs {
		out.Layers = append(out.Layers, in.Layers...)
	}
	return out
}

// diff gives what inputs[1] has over inputs[0]: its further layers where it was built on it, else one layer that is
// made by comparing the two.
func (w *Worker) diff(ctx context.Context, inputs []solve.Result) (_ solve.Result, err error) {
	below, above := inputAt(inputs, 0), inputAt(inputs, 1)
	if further, ok := onTop(below, above); ok {
		return solve.Result{Layers: further}, nil
	}
	from, err := w.View(ctx, below.Layers)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := w.View(ctx, above.Layers)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	l, err := w.commit(ctx, func(out io.Writer) error { return layer.WriteDiff(ctx, out, from, to) })
	if err != nil {
		return solve.Result{}, err
	}
	return solve.Result{Layers: []solve.Layer{l}}, nil
}

// onTop returns the layers of above that are not below's; ok is false when above is not built on it.
func onTop(below, above solve.Result) (further []solve.Layer, ok bool) {
	if len(above.Layers) < len(below.Layers) {
		return nil, false
	}
	for i, l := range below.Layers {
		if above.Layers[i].DiffID != l.DiffID {
			return nil, false
		}
	}
	return above.Layers[len(below.Layers):], true
}

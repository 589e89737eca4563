package llb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Decode gives the vertex that a definition's last operation names; nil is scratch. The error joins an [*Error] for every
// operation on the way there that has something wrong, in the order of their places.
func Decode(def *Definition, o Options) (*graph.Vertex, error) {
	ops, result, err := parse(def)
	if err != nil || result == nil {
		return nil, err
	}
	d := &decoder{
		o: o, def: def, caps: Caps(),
		ops: map[digest.Digest]*operation{}, made: map[edge]*graph.Vertex{}, failed: map[digest.Digest]bool{},
	}
	for _, op := range ops {
		d.ops[op.digest] = op
	}
	root := d.output(result)
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, func(a, b *Error) int { return cmp.Compare(line(a), line(b)) })
		errs := make([]error, len(d.errs))
		for i, e := range d.errs {
			errs[i] = e
		}
		return nil, errors.Join(errs...)
	}
	return root, nil
}

func line(e *Error) int {
	if e.Excerpt == nil {
		return 0
	}
	return e.Excerpt.From
}

// edge is one output of one operation. Actions of a file operation that others build on have outputs of their own,
// below zero.
type edge struct {
	op    digest.Digest
	index int64
}

// decoder is one definition being read.
type decoder struct {
	o      Options
	def    *Definition
	caps   apicaps.CapSet
	ops    map[digest.Digest]*operation
	made   map[edge]*graph.Vertex
	failed map[digest.Digest]bool // operations with an error of their own: said once
	errs   []*Error
}

// fail reports what is wrong with op.
func (d *decoder) fail(op *operation, kind error, format string, a ...any) {
	if d.failed[op.digest] {
		return
	}
	d.failed[op.digest] = true
	meta := d.meta(op)
	name := ""
	if op.meta != nil {
		name = op.meta.Description[customName]
	}
	d.errs = append(d.errs, &Error{
		Source: meta.Source, Name: name, Excerpt: meta.Excerpt, Kind: kind, Text: fmt.Sprintf(format, a...),
	})
}

// output is the vertex of one output. It is nil for what was reported, too: nothing is made of a definition with an error.
func (d *decoder) output(in *pb.Input) *graph.Vertex {
	if in == nil {
		d.errs = append(d.errs, &Error{Source: d.file(), Kind: ErrInvalid, Text: "an input is empty"})
		return nil
	}
	e := edge{digest.Digest(in.Digest), in.Index}
	if v, ok := d.made[e]; ok {
		return v
	}
	op, ok := d.ops[e.op]
	if !ok {
		if !d.failed[e.op] {
			d.failed[e.op] = true
			d.errs = append(d.errs, &Error{Source: d.file(), Kind: ErrInvalid, Text: fmt.Sprintf("there is no operation %q", in.Digest)})
		}
		return nil
	}
	if in.Index < 0 {
		d.fail(op, ErrInvalid, "output %d", in.Index)
		return nil
	}
	v := d.vertex(op, in.Index)
	d.made[e] = v
	return v
}

func (d *decoder) file() string { return cmp.Or(d.o.File, "llb") }

// vertex decodes op for one of its outputs.
func (d *decoder) vertex(op *operation, index int64) *graph.Vertex {
	if !d.check(op) {
		return nil
	}
	if _, several := op.Op.Op.(*pb.Op_File); index != 0 && !several {
		if _, several := op.Op.Op.(*pb.Op_Exec); !several {
			d.fail(op, ErrInvalid, "it has no output %d", index)
			return nil
		}
	}
	switch o := op.Op.Op.(type) {
	case *pb.Op_Source:
		return d.source(op, o.Source)
	case *pb.Op_Exec:
		return d.exec(op, o.Exec, index)
	case *pb.Op_File:
		return d.fileOutput(op, o.File, index)
	case *pb.Op_Merge:
		return d.merge(op, o.Merge)
	case *pb.Op_Diff:
		return d.diff(op, o.Diff)
	case *pb.Op_Build:
		d.fail(op, ErrUnsupported, "a build inside of a build")
	case *pb.Op_Passthrough:
		d.fail(op, ErrUnsupported, "a passthrough operation")
	default:
		d.fail(op, ErrUnsupported, "an operation that is unknown")
	}
	return nil
}

// check looks at what all kinds of operations have.
func (d *decoder) check(op *operation) bool {
	if op.Constraints != nil && len(op.Constraints.Filter) > 0 {
		d.fail(op, ErrUnsupported, "a choice of workers (%s)", strings.Join(op.Constraints.Filter, ", "))
		return false
	}
	if op.meta == nil {
		return true
	}
	var missing []string
	for c, needed := range op.meta.Caps {
		if needed && d.caps.Supports(apicaps.CapID(c)) != nil {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		d.fail(op, ErrUnsupported, "it needs %s", strings.Join(missing, ", "))
		return false
	}
	if r := op.meta.LinuxResources; r != nil && (r.Memory != 0 || r.MemorySwap != 0 || r.CpuShares != 0 || r.CpuPeriod != 0 ||
		r.CpuQuota != 0 || r.CpusetCpus != "" || r.CpusetMems != "") {
		d.fail(op, ErrUnsupported, "limits of memory and processors, which need a cgroup")
		return false
	}
	return true
}

// platformOf is the platform of op, else the options'.
func (d *decoder) platformOf(op *operation) platform.Platform {
	p := op.Platform
	if p == nil {
		return d.o.Platform
	}
	return platform.Normalise(platform.Platform{OS: p.OS, Arch: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion})
}

// input is the vertex of op's input i; -1 is scratch.
func (d *decoder) input(op *operation, i int64) (*graph.Vertex, bool) {
	if i == int64(pb.Empty) {
		return nil, true
	}
	if i < 0 || i >= int64(len(op.Inputs)) {
		d.fail(op, ErrInvalid, "it has no input %d", i)
		return nil, false
	}
	before := len(d.errs)
	v := d.output(op.Inputs[i])
	return v, len(d.errs) == before
}

func (d *decoder) merge(op *operation, m *pb.MergeOp) *graph.Vertex {
	if m == nil || len(m.Inputs) == 0 {
		d.fail(op, ErrInvalid, "a merge of nothing")
		return nil
	}
	inputs := make([]*graph.Vertex, len(m.Inputs))
	for i, in := range m.Inputs {
		inputs[i], _ = d.input(op, in.GetInput())
	}
	return graph.New(graph.Merge{}, platform.Platform{}, d.meta(op), inputs...)
}

func (d *decoder) diff(op *operation, m *pb.DiffOp) *graph.Vertex {
	if m == nil || m.Lower == nil || m.Upper == nil {
		d.fail(op, ErrInvalid, "a difference without its sides")
		return nil
	}
	lower, _ := d.input(op, m.Lower.Input)
	upper, _ := d.input(op, m.Upper.Input)
	return graph.New(graph.Diff{}, platform.Platform{}, d.meta(op), lower, upper)
}

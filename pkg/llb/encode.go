package llb

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// EncodeOptions say what a definition cannot take from the graph. Source is required when a vertex is an image.
type EncodeOptions struct {
	// Source gives what stands for v in the definition: for images, whose names mean something on this side only, and for
	// whatever else has a result already. ok is false for vertices that are to be encoded as they are.
	Source func(v *graph.Vertex) (s Source, ok bool, err error)
	// Process gives what a process inherits that v's operation does not say; nil: nothing.
	Process func(v *graph.Vertex) (Process, error)
	Allow   Allow // with NetworkHost a step gets the network of the machine, else that of the daemon's sandbox
	NoCache bool  // run every step
}

// Source is a source of BuildKit.
type Source struct {
	Identifier string // "docker-image://...@sha256:..."
	Attrs      map[string]string
	Platform   platform.Platform
}

// Process is what comes from the config of the image that a step runs in.
type Process struct {
	Env []string // all of it: the image's and the step's
	Cwd string   // "" is /
}

// Encoded is a graph as a definition.
type Encoded struct {
	Definition *Definition // nil for scratch
	// Vertices are those of the graph by the digests of their operations, as progress and errors name them. An
	// operation that has none was needed for another.
	Vertices map[digest.Digest]*graph.Vertex
}

// Encode writes a graph as LLB: what [Decode] makes of the result, with the sources put in, is root.
func Encode(root *graph.Vertex, o EncodeOptions) (*Encoded, error) {
	e := &encoder{o: o, made: map[digest.Digest]*pb.Input{}, out: &Encoded{
		Definition: &Definition{Metadata: map[string]*pb.OpMetadata{}}, Vertices: map[digest.Digest]*graph.Vertex{},
	}}
	result, err := e.vertex(root)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return &Encoded{Vertices: e.out.Vertices}, nil
	}
	if err := e.add(&pb.Op{Inputs: []*pb.Input{result}}, nil, nil); err != nil {
		return nil, err
	}
	return e.out, nil
}

// encoder is one definition being written.
type encoder struct {
	o    EncodeOptions
	made map[digest.Digest]*pb.Input // by vertex; nil is scratch
	out  *Encoded
}

// vertex gives the output that is v's result; nil is scratch.
func (e *encoder) vertex(v *graph.Vertex) (*pb.Input, error) {
	if v == nil {
		return nil, nil
	}
	if in, ok := e.made[v.Digest()]; ok {
		return in, nil
	}
	in, err := e.encode(v)
	if err != nil {
		return nil, err
	}
	e.made[v.Digest()] = in
	return in, nil
}

func (e *encoder) encode(v *graph.Vertex) (*pb.Input, error) {
	if e.o.Source != nil {
		s, ok, err := e.o.Source(v)
		if err != nil {
			return nil, err
		}
		if ok {
			return e.op(v, &pb.Op{Platform: platformPB(s.Platform), Op: &pb.Op_Source{Source: &pb.SourceOp{
				Identifier: s.Identifier, Attrs: s.Attrs,
			}}}, 0)
		}
	}
	switch op := v.Op.(type) {
	case graph.Local, graph.HTTP, graph.Git:
		return e.source(v)
	case graph.Exec:
		return e.exec(v, op)
	case graph.Output:
		return e.output(v, op)
	case graph.File:
		return e.file(v, op)
	case graph.Merge:
		return e.merge(v)
	case graph.Diff:
		return e.diff(v)
	}
	return nil, fmt.Errorf("%s: %s: the operation %q in LLB: %w", v.Meta.Source, v.Meta.Name, v.Op.Kind(), ErrUnsupported)
}

// op adds the operation of v and gives one of its outputs.
func (e *encoder) op(v *graph.Vertex, op *pb.Op, output int64) (*pb.Input, error) {
	meta := &pb.OpMetadata{Description: map[string]string{customName: v.Meta.Name}, IgnoreCache: v.Meta.NoCache}
	if e.o.NoCache {
		if _, source := op.Op.(*pb.Op_Source); !source {
			meta.IgnoreCache = true
		}
	}
	op.Constraints = &pb.WorkerConstraints{}
	if err := e.add(op, meta, v); err != nil {
		return nil, err
	}
	return &pb.Input{Digest: string(digest.FromBytes(e.out.Definition.Def[len(e.out.Definition.Def)-1])), Index: output}, nil
}

func (e *encoder) add(op *pb.Op, meta *pb.OpMetadata, v *graph.Vertex) error {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	if err != nil {
		return fmt.Errorf("writing LLB: %w", err)
	}
	d := e.out.Definition
	d.Def = append(d.Def, raw)
	if meta != nil {
		d.Metadata[string(digest.FromBytes(raw))] = meta
	}
	if v != nil {
		e.out.Vertices[digest.FromBytes(raw)] = v
	}
	return nil
}

// inputs collects the inputs of one operation, each once.
type inputs struct {
	encoder *encoder
	list    []*pb.Input
}

// index is the number of v among the inputs; that of scratch is -1.
func (in *inputs) index(v *graph.Vertex) (int64, error) {
	i, err := in.encoder.vertex(v)
	if err != nil || i == nil {
		return int64(pb.Empty), err
	}
	return in.of(i), nil
}

func (in *inputs) of(i *pb.Input) int64 {
	for n, have := range in.list {
		if have.Digest == i.Digest && have.Index == i.Index {
			return int64(n)
		}
	}
	in.list = append(in.list, i)
	return int64(len(in.list) - 1)
}

// merge leaves scratch out, and itself when nothing is left to merge.
func (e *encoder) merge(v *graph.Vertex) (*pb.Input, error) {
	in := inputs{encoder: e}
	var list []*pb.MergeInput
	var last *pb.Input
	for _, one := range v.Inputs {
		i, err := e.vertex(one)
		if err != nil {
			return nil, err
		}
		if i != nil {
			last = i
			list = append(list, &pb.MergeInput{Input: in.of(i)})
		}
	}
	if len(list) < 2 {
		return last, nil
	}
	return e.op(v, &pb.Op{Inputs: in.list, Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: list}}}, 0)
}

func (e *encoder) diff(v *graph.Vertex) (*pb.Input, error) {
	in := inputs{encoder: e}
	lower, err := in.index(v.Inputs[0])
	upper, uerr := in.index(v.Inputs[1])
	if err := errors.Join(err, uerr); err != nil {
		return nil, err
	}
	return e.op(v, &pb.Op{Inputs: in.list, Op: &pb.Op_Diff{Diff: &pb.DiffOp{
		Lower: &pb.LowerDiffInput{Input: lower}, Upper: &pb.UpperDiffInput{Input: upper},
	}}}, 0)
}

// platformPB is p as LLB has it; nil for none.
func platformPB(p platform.Platform) *pb.Platform {
	if p.IsZero() {
		return nil
	}
	o := p.OCI()
	return &pb.Platform{OS: o.OS, Architecture: o.Architecture, Variant: o.Variant, OSVersion: o.OSVersion, OSFeatures: o.OSFeatures}
}

package llb

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Bounds of a definition. BuildKit's own is 16 MiB a message.
const (
	maxSize = 64 << 20
	maxOps  = 100_000
)

// Read reads a definition as its producers write it: one protobuf message.
func Read(r io.Reader) (*Definition, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading LLB: %w", err)
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrInvalid, maxSize)
	}
	def := &Definition{}
	if err := def.UnmarshalVT(b); err != nil {
		return nil, fmt.Errorf("%w: no definition: %v", ErrInvalid, err) //nolint:errorlint // the codec's errors are no kinds
	}
	return def, nil
}

// Write writes a definition as [Read] reads it.
func Write(w io.Writer, def *Definition) error {
	b, err := def.MarshalVT()
	if err != nil {
		return fmt.Errorf("writing LLB: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("writing LLB: %w", err)
	}
	return nil
}

// operation is one parsed operation of a definition.
type operation struct {
	*pb.Op
	digest digest.Digest
	meta   *pb.OpMetadata
}

// parse gives the operations of a definition in its order, without the last, which only names the result.
func parse(def *Definition) (ops []*operation, result *pb.Input, err error) {
	if def == nil || len(def.Def) == 0 {
		return nil, nil, nil
	}
	if len(def.Def) > maxOps {
		return nil, nil, fmt.Errorf("%w: %d operations, more than %d", ErrInvalid, len(def.Def), maxOps)
	}
	for i, raw := range def.Def {
		op := &operation{Op: &pb.Op{}, digest: digest.FromBytes(raw)}
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, nil, fmt.Errorf("%w: operation %d: %v", ErrInvalid, i, err) //nolint:errorlint // as above
		}
		op.meta = def.Metadata[string(op.digest)]
		ops = append(ops, op)
	}
	last := ops[len(ops)-1]
	if last.Op.Op != nil || len(last.Inputs) != 1 || last.Inputs[0] == nil {
		return nil, nil, fmt.Errorf("%w: the last operation does not name the result", ErrInvalid)
	}
	return ops[:len(ops)-1], last.Inputs[0], nil
}

// Print writes a definition as buildctl's debug dump-llb does: one JSON object a line and operation.
func Print(w io.Writer, def *Definition) error {
	ops, _, err := parse(def)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, op := range ops {
		line := struct {
			Op         *pb.Op
			Digest     digest.Digest
			OpMetadata *pb.OpMetadata
		}{op.Op, op.digest, op.meta}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("printing LLB: %w", err)
		}
	}
	return out.Flush()
}

// texts reports whether all are text: others' bytes would be equal in the JSON of a digest.
func texts(ss ...string) bool {
	for _, s := range ss {
		if !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

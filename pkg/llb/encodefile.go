package llb

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// inputTo is output 0 of an operation.
func inputTo(raw []byte) *pb.Input { return &pb.Input{Digest: string(digest.FromBytes(raw))} }

// file encodes a chain of actions: each works on what the one before it made.
func (e *encoder) file(v *graph.Vertex, f graph.File) (*pb.Input, error) {
	in := inputs{encoder: e}
	x := &fileEncoder{v: v, in: &in, indexes: make([]int64, max(1, len(v.Inputs)))}
	for i := range x.indexes {
		var err error
		if x.indexes[i], err = in.index(inputOf(v, i)); err != nil {
			return nil, err
		}
	}
	op := &pb.FileOp{}
	for i, a := range f.Actions {
		out, err := x.action(a)
		if err != nil {
			return nil, err
		}
		out.Input, out.Output = x.indexes[0], int64(pb.SkipOutput)
		if i > 0 {
			out.Input = int64(len(in.list) + i - 1)
		}
		if i == len(f.Actions)-1 {
			out.Output = 0
		}
		op.Actions = append(op.Actions, out)
	}
	return e.op(v, &pb.Op{Inputs: in.list, Op: &pb.Op_File{File: op}}, 0)
}

// fileEncoder is one file operation.
type fileEncoder struct {
	v       *graph.Vertex
	in      *inputs
	indexes []int64 // of v's inputs
}

// index is an input of the vertex among those of the operation; -1 is scratch.
func (x *fileEncoder) index(i int) int64 {
	if i < 0 || i >= len(x.indexes) {
		return int64(pb.Empty)
	}
	return x.indexes[i]
}

func (x *fileEncoder) action(a graph.FileAction) (*pb.FileAction, error) {
	out := &pb.FileAction{SecondaryInput: int64(pb.Empty)}
	switch {
	case a.Copy != nil:
		c := a.Copy
		out.SecondaryInput = x.index(c.Input)
		mode := int32(-1)
		if c.Mode != nil {
			mode = int32(*c.Mode)
		}
		out.Action = &pb.FileAction_Copy{Copy: &pb.FileActionCopy{
			Src: c.Src, Dest: c.Dest, Owner: x.owner(c.Owner), Mode: mode, ModeStr: c.ModeText, Timestamp: timestamp(c.Time),
			FollowSymlink: c.FollowSymlink, DirCopyContents: c.DirContents, AttemptUnpackDockerCompatibility: c.Unpack,
			CreateDestPath: c.CreateDestPath, AllowWildcard: c.Wildcard, AllowEmptyWildcard: c.EmptyWildcard,
			AlwaysReplaceExistingDestPaths: c.ReplaceExisting,
			IncludePatterns:                c.Include, ExcludePatterns: c.Exclude, RequiredPaths: c.Required,
		}}
	case a.Mkfile != nil:
		f := a.Mkfile
		out.Action = &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{
			Path: f.Path, Mode: int32(f.Mode), Data: f.Data, Owner: x.owner(f.Owner), Timestamp: timestamp(f.Time),
		}}
	case a.Mkdir != nil:
		d := a.Mkdir
		out.Action = &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{
			Path: d.Path, Mode: int32(d.Mode), MakeParents: d.Parents, Owner: x.owner(d.Owner), Timestamp: timestamp(d.Time),
		}}
	case a.Symlink != nil:
		s := a.Symlink
		out.Action = &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{
			Oldpath: s.Old, Newpath: s.New, Owner: x.owner(s.Owner), Timestamp: timestamp(s.Time),
		}}
	case a.Rm != nil:
		out.Action = &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: a.Rm.Path, AllowNotFound: a.Rm.MayMiss, AllowWildcard: a.Rm.Wildcard}}
	default:
		return nil, fmt.Errorf("%s: an action that does nothing: %w", x.v.Meta.Source, ErrInvalid)
	}
	return out, nil
}

func (x *fileEncoder) owner(o *graph.Owner) *pb.ChownOpt {
	if o == nil {
		return nil
	}
	return &pb.ChownOpt{User: x.account(o.User), Group: x.account(o.Group)}
}

func (x *fileEncoder) account(a *graph.Account) *pb.UserOpt {
	switch {
	case a == nil:
		return nil
	case a.Name != "":
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: a.Name, Input: x.index(a.Input)}}}
	}
	return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: uint32(a.ID)}}
}

// timestamp is a time; none is -1.
func timestamp(t *int64) int64 {
	if t == nil {
		return -1
	}
	return *t
}

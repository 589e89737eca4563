package llb

import (
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// fileDecoder makes vertices of one file operation. LLB's actions are a graph of their own; the graph's file operation
// is a chain. An action whose result is an output, or is used by more than the next action, ends a vertex.
type fileDecoder struct {
	*decoder
	op    *operation
	file  *pb.FileOp
	users []int // how many actions build on an action
}

// fileOutput gives one output of a file operation.
func (d *decoder) fileOutput(op *operation, f *pb.FileOp, index int64) *graph.Vertex {
	if f == nil || len(f.Actions) == 0 {
		d.fail(op, ErrInvalid, "a file operation that does nothing")
		return nil
	}
	x := &fileDecoder{decoder: d, op: op, file: f, users: make([]int, len(f.Actions))}
	found := -1
	for i, a := range f.Actions {
		if a == nil {
			d.fail(op, ErrInvalid, "an action is empty")
			return nil
		}
		for _, in := range x.uses(a) {
			if j := in - int64(len(op.Inputs)); j >= int64(i) {
				d.fail(op, ErrInvalid, "action %d builds on action %d", i, j)
				return nil
			} else if j >= 0 {
				x.users[j]++
			}
		}
		if a.Output == index {
			if found >= 0 {
				d.fail(op, ErrInvalid, "two actions are output %d", index)
				return nil
			}
			found = i
		}
	}
	if found < 0 {
		d.fail(op, ErrInvalid, "it has no output %d", index)
		return nil
	}
	return x.action(found)
}

// uses are the inputs that an action builds on.
func (x *fileDecoder) uses(a *pb.FileAction) []int64 {
	out := []int64{a.Input}
	if a.GetCopy() != nil {
		out = append(out, a.SecondaryInput)
	}
	for _, u := range []*pb.UserOpt{owner(a).GetUser(), owner(a).GetGroup()} {
		if n := u.GetByName(); n != nil {
			out = append(out, n.Input)
		}
	}
	return out
}

func owner(a *pb.FileAction) *pb.ChownOpt {
	switch o := a.Action.(type) {
	case *pb.FileAction_Copy:
		return o.Copy.GetOwner()
	case *pb.FileAction_Mkfile:
		return o.Mkfile.GetOwner()
	case *pb.FileAction_Mkdir:
		return o.Mkdir.GetOwner()
	case *pb.FileAction_Symlink:
		return o.Symlink.GetOwner()
	}
	return nil
}

// action is the vertex whose last action is i.
func (x *fileDecoder) action(i int) *graph.Vertex {
	e := edge{x.op.digest, int64(-1 - i)}
	if v, ok := x.made[e]; ok {
		return v
	}
	chain := []int{i}
	below := x.file.Actions[i].Input
	for {
		j := below - int64(len(x.op.Inputs))
		if j < 0 || x.users[j] > 1 || x.file.Actions[j].Output >= 0 {
			break
		}
		chain = append(chain, int(j))
		below = x.file.Actions[j].Input
	}
	c := &fileChain{fileDecoder: x, below: below, inputs: []*graph.Vertex{x.vertexOf(below)}}
	for k := len(chain) - 1; k >= 0; k-- {
		c.add(x.file.Actions[chain[k]])
	}
	var v *graph.Vertex
	if !x.failed[x.op.digest] {
		v = graph.New(graph.File{Actions: c.out}, platform.Platform{}, x.meta(x.op), c.inputs...)
	}
	x.made[e] = v
	return v
}

// vertexOf is an input of the operation or the result of one of its actions.
func (x *fileDecoder) vertexOf(in int64) *graph.Vertex {
	if j := in - int64(len(x.op.Inputs)); j >= 0 {
		return x.action(int(j))
	}
	v, _ := x.input(x.op, in)
	return v
}

// fileChain is one vertex being made.
type fileChain struct {
	*fileDecoder
	below  int64 // what the vertex changes
	inputs []*graph.Vertex
	out    []graph.FileAction
}

// index is what an input is in the vertex.
func (c *fileChain) index(in int64) int {
	switch in {
	case int64(pb.Empty):
		return -1
	case c.below:
		return 0
	}
	v := c.vertexOf(in)
	if v == nil {
		return -1
	}
	for i, have := range c.inputs {
		if i > 0 && have == v {
			return i
		}
	}
	c.inputs = append(c.inputs, v)
	return len(c.inputs) - 1
}

func (c *fileChain) add(a *pb.FileAction) {
	var out graph.FileAction
	own := c.owner(owner(a))
	switch o := a.Action.(type) {
	case *pb.FileAction_Copy:
		out.Copy = c.copy(o.Copy, a)
		if out.Copy != nil {
			out.Copy.Owner = own
		}
	case *pb.FileAction_Mkfile:
		if c.path(o.Mkfile.GetPath()) {
			out.Mkfile = &graph.FileMkfile{
				Path: o.Mkfile.Path, Mode: uint32(o.Mkfile.Mode) & 0o777, Data: o.Mkfile.Data, Owner: own, Time: nanoseconds(o.Mkfile.Timestamp),
			}
		}
	case *pb.FileAction_Mkdir:
		if c.path(o.Mkdir.GetPath()) {
			out.Mkdir = &graph.FileMkdir{
				Path: o.Mkdir.Path, Mode: uint32(o.Mkdir.Mode) & 0o7777, Parents: o.Mkdir.MakeParents, Owner: own, Time: nanoseconds(o.Mkdir.Timestamp),
			}
		}
	case *pb.FileAction_Symlink:
		if c.path(o.Symlink.GetNewpath()) && c.path(o.Symlink.GetOldpath()) {
			out.Symlink = &graph.FileSymlink{
				Old: o.Symlink.Oldpath, New: o.Symlink.Newpath, Owner: own, Time: nanoseconds(o.Symlink.Timestamp),
			}
		}
	case *pb.FileAction_Rm:
		if c.path(o.Rm.GetPath()) {
			out.Rm = &graph.FileRm{Path: o.Rm.Path, MayMiss: o.Rm.AllowNotFound, Wildcard: o.Rm.AllowWildcard}
		}
	default:
		c.fail(c.op, ErrUnsupported, "a file action that is unknown")
	}
	c.out = append(c.out, out)
}

func (c *fileChain) copy(o *pb.FileActionCopy, a *pb.FileAction) *graph.FileCopy {
	if !c.path(o.GetSrc()) || !c.path(o.GetDest()) {
		return nil
	}
	for _, list := range [][]string{o.IncludePatterns, o.ExcludePatterns, o.RequiredPaths} {
		if !texts(list...) {
			c.fail(c.op, ErrInvalid, "a pattern is not text")
			return nil
		}
	}
	out := &graph.FileCopy{
		Input: c.index(a.SecondaryInput), Src: o.Src, Dest: o.Dest, ModeText: o.ModeStr, Time: nanoseconds(o.Timestamp),
		FollowSymlink: o.FollowSymlink, DirContents: o.DirCopyContents, Unpack: o.AttemptUnpackDockerCompatibility,
		CreateDestPath: o.CreateDestPath, Wildcard: o.AllowWildcard, EmptyWildcard: o.AllowEmptyWildcard,
		ReplaceExisting: o.AlwaysReplaceExistingDestPaths,
		Include:         o.IncludePatterns, Exclude: o.ExcludePatterns, Required: o.RequiredPaths,
	}
	if o.Mode >= 0 && o.ModeStr == "" {
		if o.Mode > 0o7777 {
			c.fail(c.op, ErrInvalid, "mode %#o", o.Mode)
		}
		mode := uint32(o.Mode)
		out.Mode = &mode
	}
	return out
}

// path reports whether p can be one.
func (c *fileChain) path(p string) bool {
	if !texts(p) || strings.ContainsRune(p, 0) {
		c.fail(c.op, ErrInvalid, "path %q is not text", p)
		return false
	}
	return true
}

func (c *fileChain) owner(o *pb.ChownOpt) *graph.Owner {
	if o == nil {
		return nil
	}
	return &graph.Owner{User: c.account(o.User), Group: c.account(o.Group)}
}

func (c *fileChain) account(u *pb.UserOpt) *graph.Account {
	switch o := u.GetUser().(type) {
	case *pb.UserOpt_ByName:
		if o.ByName == nil || !texts(o.ByName.Name) {
			c.fail(c.op, ErrInvalid, "the name of a user or group is not text")
			return nil
		}
		return &graph.Account{Name: o.ByName.Name, Input: c.index(o.ByName.Input)}
	case *pb.UserOpt_ByID:
		return &graph.Account{ID: int(o.ByID)}
	}
	return nil
}

// nanoseconds is a time; -1 is none.
func nanoseconds(t int64) *int64 {
	if t == -1 {
		return nil
	}
	return &t
}

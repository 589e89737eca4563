package llb

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// exec encodes a step and gives its rootfs.
func (e *encoder) exec(v *graph.Vertex, x graph.Exec) (*pb.Input, error) {
	in := inputs{encoder: e}
	out := &pb.ExecOp{}
	var err error
	if out.Meta, err = e.process(v, x); err != nil {
		return nil, err
	}
	switch x.Network {
	case graph.NetworkNone:
		out.Network = pb.NetMode_NONE
	case graph.NetworkHost:
		if e.o.Allow.NetworkHost {
			out.Network = pb.NetMode_HOST
		}
	case graph.NetworkDefault:
	}
	for _, name := range x.Devices {
		out.CdiDevices = append(out.CdiDevices, &pb.CDIDevice{Name: name})
	}
	if x.Security == graph.SecurityInsecure {
		out.Security = pb.SecurityMode_INSECURE
	}
	root := &pb.Mount{Dest: "/", Output: rootOutput(x), Readonly: x.RootReadOnly, Selector: x.RootSource}
	if root.Input, err = in.index(inputOf(v, 0)); err != nil {
		return nil, err
	}
	if x.RootDiscard {
		root.Output = int64(pb.SkipOutput)
	}
	out.Mounts = append(out.Mounts, root)
	for _, m := range x.Mounts {
		if m.Type == graph.MountSecret && m.Env != "" {
			out.Secretenv = append(out.Secretenv, &pb.SecretEnv{ID: m.ID, Name: m.Env, Optional: !m.Required})
			if m.Target == "" {
				continue
			}
		}
		one, err := e.mount(&in, v, m)
		if err != nil {
			return nil, err
		}
		out.Mounts = append(out.Mounts, one)
	}
	return e.op(v, &pb.Op{Inputs: in.list, Platform: platformPB(v.Platform), Op: &pb.Op_Exec{Exec: out}}, rootOutput(x))
}

// inputOf is v's input i; nil is scratch.
func inputOf(v *graph.Vertex, i int) *graph.Vertex {
	if i < 0 || i >= len(v.Inputs) {
		return nil
	}
	return v.Inputs[i]
}

// rootOutput is the number of the rootfs among a step's outputs: the first that no mount has.
func rootOutput(x graph.Exec) int64 {
	outputs := x.Outputs()
	for i := int64(0); ; i++ {
		if _, taken := outputs[outputNumber(i)]; !taken {
			return i
		}
	}
}

// output gives another output than the rootfs of the step that is v's input.
func (e *encoder) output(v *graph.Vertex, op graph.Output) (*pb.Input, error) {
	step, err := e.vertex(inputOf(v, 0))
	if err != nil {
		return nil, err
	}
	if step == nil {
		return nil, fmt.Errorf("%s: an output of nothing: %w", v.Meta.Source, ErrInvalid)
	}
	return &pb.Input{Digest: step.Digest, Index: int64(op.Index - 1)}, nil
}

// process is what runs.
func (e *encoder) process(v *graph.Vertex, x graph.Exec) (*pb.Meta, error) {
	p := Process{Env: x.Env, Cwd: x.Cwd}
	if e.o.Process != nil {
		var err error
		if p, err = e.o.Process(v); err != nil {
			return nil, err
		}
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	out := &pb.Meta{
		Args: x.Args, Env: p.Env, Cwd: p.Cwd, User: x.User, Hostname: x.Hostname, RemoveMountStubsRecursive: !x.KeepStubParents,
	}
	for _, h := range x.Hosts {
		out.ExtraHosts = append(out.ExtraHosts, &pb.HostIP{Host: h.Name, IP: h.IP})
	}
	for _, u := range x.Ulimits {
		out.Ulimit = append(out.Ulimit, &pb.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, c := range x.ExitCodes {
		out.ValidExitCodes = append(out.ValidExitCodes, int32(c))
	}
	if p := x.Proxy; p != nil {
		out.ProxyEnv = &pb.ProxyEnv{HttpProxy: p.HTTP, HttpsProxy: p.HTTPS, FtpProxy: p.FTP, NoProxy: p.No, AllProxy: p.All}
	}
	return out, nil
}

// mount encodes a mount beside the rootfs.
func (e *encoder) mount(in *inputs, v *graph.Vertex, m graph.Mount) (*pb.Mount, error) {
	out := &pb.Mount{Dest: m.Target, Input: int64(pb.Empty), Output: int64(pb.SkipOutput)}
	mode := func(byDefault uint32) uint32 {
		if m.Mode != nil {
			return *m.Mode
		}
		return byDefault
	}
	var err error
	switch m.Type {
	case graph.MountBind:
		out.MountType, out.Selector, out.Readonly = pb.MountType_BIND, m.Source, !m.Writable
		if m.Output > 0 {
			out.Output = int64(m.Output - 1)
		}
		switch m.Keyed {
		case graph.KeyedByContent:
			out.ContentCache = pb.MountContentCache_ON
		case graph.KeyedByInput:
			out.ContentCache = pb.MountContentCache_OFF
		}
		if m.Input > 0 {
			out.Input, err = in.index(inputOf(v, m.Input))
		}
	case graph.MountCache:
		out.MountType, out.Selector, out.Readonly = pb.MountType_CACHE, m.Source, m.ReadOnly
		out.CacheOpt = &pb.CacheOpt{ID: m.ID, Sharing: map[string]pb.CacheSharingOpt{
			"private": pb.CacheSharingOpt_PRIVATE, "locked": pb.CacheSharingOpt_LOCKED,
		}[m.Sharing]}
		switch {
		case m.Input > 0:
			out.Input, err = in.index(inputOf(v, m.Input))
		case m.Mode != nil || m.UID != 0 || m.GID != 0:
			out.Selector = cacheDir
			out.Input, err = e.cacheDir(in, mode(0o755), m.UID, m.GID)
		}
	case graph.MountTmpfs:
		out.MountType, out.TmpfsOpt = pb.MountType_TMPFS, &pb.TmpfsOpt{Size: m.Size}
	case graph.MountSecret:
		out.MountType = pb.MountType_SECRET
		out.SecretOpt = &pb.SecretOpt{ID: m.ID, Uid: uint32(m.UID), Gid: uint32(m.GID), Mode: mode(0o400), Optional: !m.Required}
	case graph.MountSSH:
		out.MountType = pb.MountType_SSH
		out.SSHOpt = &pb.SSHOpt{ID: m.ID, Uid: uint32(m.UID), Gid: uint32(m.GID), Mode: mode(0o600), Optional: !m.Required}
	default:
		err = fmt.Errorf("%s: a mount of type %q in LLB: %w", v.Meta.Source, m.Type, ErrUnsupported)
	}
	return out, err
}

// cacheDir is the name of the directory that an empty cache begins with, as the Dockerfile frontend calls it.
const cacheDir = "/cache"

// cacheDir adds the operation that makes the directory which an empty cache begins with.
func (e *encoder) cacheDir(in *inputs, mode uint32, uid, gid int) (int64, error) {
	byID := func(id int) *pb.UserOpt { return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: uint32(id)}} }
	op := &pb.Op{Constraints: &pb.WorkerConstraints{}, Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{
		Input: int64(pb.Empty), SecondaryInput: int64(pb.Empty), Output: 0,
		Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{
			Path: cacheDir, Mode: int32(mode), Timestamp: -1, Owner: &pb.ChownOpt{User: byID(uid), Group: byID(gid)},
		}},
	}}}}}
	if err := e.add(op, &pb.OpMetadata{Description: map[string]string{customName: "cache directory"}}, nil); err != nil {
		return 0, err
	}
	def := e.out.Definition.Def
	return in.of(inputTo(def[len(def)-1])), nil
}

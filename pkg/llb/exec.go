package llb

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ulimits are the names that docker knows.
var ulimits = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack",
}

// execDecoder makes the vertex of one exec operation.
type execDecoder struct {
	*decoder
	op     *operation
	out    graph.Exec
	inputs []*graph.Vertex // input 0 is the rootfs
	// outputs says what the operation's output of a number is.
	outputs map[int64]execOutput
}

type execOutput struct {
	root      bool
	unchanged *graph.Vertex // of a read-only mount: what is mounted
	readOnly  bool
}

// exec decodes an exec operation and gives one of its outputs.
func (d *decoder) exec(op *operation, e *pb.ExecOp, index int64) *graph.Vertex {
	x := &execDecoder{decoder: d, op: op, outputs: map[int64]execOutput{}}
	before := len(d.errs)
	x.process(e)
	x.mounts(e)
	if len(d.errs) > before || d.failed[op.digest] {
		return nil
	}
	o, ok := x.outputs[index]
	if !ok {
		d.fail(op, ErrInvalid, "it has no output %d", index)
		return nil
	}
	if o.readOnly {
		return o.unchanged
	}
	p := d.platformOf(op)
	step := graph.New(x.out, p, d.meta(op), x.inputs...)
	if o.root {
		return step
	}
	return graph.New(graph.Output{Index: outputNumber(index)}, platform.Platform{}, d.meta(op), step)
}

// outputNumber is the graph's number of an output: there 0 is none.
func outputNumber(index int64) int { return int(index) + 1 }

// process decodes everything but the mounts.
func (x *execDecoder) process(e *pb.ExecOp) {
	m := e.GetMeta()
	if m == nil || len(m.Args) == 0 {
		x.fail(x.op, ErrInvalid, "a step without a command")
		return
	}
	x.out = graph.Exec{
		Args: m.Args, Env: m.Env, Cwd: m.Cwd, User: m.User, Hostname: m.Hostname, KeepStubParents: !m.RemoveMountStubsRecursive,
	}
	if !texts(m.Args...) || !texts(m.Env...) || !texts(m.Cwd, m.User, m.Hostname) {
		x.fail(x.op, ErrInvalid, "its command, environment, directory or user is not text")
	}
	for _, kv := range m.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			x.fail(x.op, ErrInvalid, "variable %q is not NAME=VALUE", kv)
		}
	}
	for _, s := range slices.Concat(m.Args, m.Env, []string{m.Cwd}) {
		if strings.ContainsRune(s, 0) {
			x.fail(x.op, ErrInvalid, "its command or environment holds a NUL")
		}
	}
	if m.CgroupParent != "" {
		x.fail(x.op, ErrUnsupported, "a parent cgroup (%s)", m.CgroupParent)
	}
	for _, h := range m.ExtraHosts {
		x.out.Hosts = append(x.out.Hosts, graph.Host{Name: h.GetHost(), IP: h.GetIP()})
	}
	for _, u := range m.Ulimit {
		if !slices.Contains(ulimits, u.GetName()) {
			x.fail(x.op, ErrInvalid, "there is no limit %q", u.GetName())
		}
		x.out.Ulimits = append(x.out.Ulimits, graph.Ulimit{Name: u.GetName(), Soft: u.GetSoft(), Hard: u.GetHard()})
	}
	for _, c := range m.ValidExitCodes {
		x.out.ExitCodes = append(x.out.ExitCodes, int(c))
	}
	if p := m.ProxyEnv; p != nil {
		proxy := graph.Proxy{HTTP: p.HttpProxy, HTTPS: p.HttpsProxy, FTP: p.FtpProxy, No: p.NoProxy, All: p.AllProxy}
		if proxy != (graph.Proxy{}) {
			x.out.Proxy = &proxy
		}
	}
	if x.out.Proxy == nil {
		x.out.Proxy = x.o.Proxy
	}
	x.isolation(e)
	for _, s := range e.Secretenv {
		if s.GetName() == "" || s.GetID() == "" {
			x.fail(x.op, ErrInvalid, "a secret variable without a name or an id")
		}
		x.out.Mounts = append(x.out.Mounts, graph.Mount{
			Type: graph.MountSecret, ID: s.GetID(), Env: s.GetName(), Required: !s.GetOptional(),
		})
	}
}

// isolation decodes what a step may do, and refuses what was not allowed.
func (x *execDecoder) isolation(e *pb.ExecOp) {
	switch e.Network {
	case pb.NetMode_UNSET:
		x.out.Network = graph.NetworkDefault
	case pb.NetMode_NONE:
		x.out.Network = graph.NetworkNone
	case pb.NetMode_HOST:
		x.out.Network = graph.NetworkHost
		if !x.o.Allow.NetworkHost {
			x.fail(x.op, ErrNotAllowed, "the host's network, which needs --allow network.host")
		}
	default:
		x.fail(x.op, ErrUnsupported, "network %s", e.Network)
	}
	switch e.Security {
	case pb.SecurityMode_SANDBOX:
	case pb.SecurityMode_INSECURE:
		x.out.Security = graph.SecurityInsecure
		if !x.o.Allow.SecurityInsecure {
			x.fail(x.op, ErrNotAllowed, "all privileges, which need --allow security.insecure")
		}
	default:
		x.fail(x.op, ErrUnsupported, "security %s", e.Security)
	}
	for _, c := range e.CdiDevices {
		x.device(c)
	}
}

// device decodes what a step is to see of the machine. As in BuildKit, one that is not there is left out when it is not
// required, and one that is there must be allowed.
func (x *execDecoder) device(c *pb.CDIDevice) {
	var found []Device
	if x.o.Devices != nil {
		found = x.o.Devices(c.GetName())
	}
	switch {
	case len(found) > 0:
	case !c.GetOptional():
		x.fail(x.op, ErrUnsupported, "device %q: no CDI file describes it", c.GetName())
	case x.o.Warn != nil:
		x.o.Warn(x.meta(x.op).Source, fmt.Sprintf("the device %q is left out: no CDI file describes it, and it is not required", c.GetName()))
	}
	for _, d := range found {
		if !d.Free && !x.o.Allow.device(d.Name, x.o) {
			x.fail(x.op, ErrNotAllowed, "device %q, which needs --allow device=%s", d.Name, d.Name)
		}
		if !slices.Contains(x.out.Devices, d.Name) {
			x.out.Devices = append(x.out.Devices, d.Name)
		}
	}
}

// add makes v an input and gives its index.
func (x *execDecoder) add(v *graph.Vertex) int {
	if v == nil {
		return 0
	}
	for i, in := range x.inputs[1:] {
		if in == v {
			return i + 1
		}
	}
	x.inputs = append(x.inputs, v)
	return len(x.inputs) - 1
}

func (x *execDecoder) mounts(e *pb.ExecOp) {
	x.inputs = []*graph.Vertex{nil}
	roots := 0
	for _, m := range e.GetMounts() {
		if m.GetDest() == "/" {
			roots++
			x.root(m)
		}
	}
	if roots != 1 {
		x.fail(x.op, ErrInvalid, "it has %d root file systems", roots)
		return
	}
	for _, m := range e.Mounts {
		if m.GetDest() == "/" {
			continue
		}
		if !texts(m.GetDest(), m.GetSelector()) || strings.ContainsRune(m.GetDest()+m.GetSelector(), 0) {
			x.fail(x.op, ErrInvalid, "mount %q is not text", m.GetDest())
			continue
		}
		if m.GetDest() == "" && m.GetMountType() != pb.MountType_SECRET {
			x.fail(x.op, ErrInvalid, "a mount without a destination")
			continue
		}
		if m.GetResultID() != "" {
			x.fail(x.op, ErrUnsupported, "mount %s of another build's result", m.Dest)
			continue
		}
		x.mount(m)
	}
}

// root decodes the mount at /.
func (x *execDecoder) root(m *pb.Mount) {
	if m.MountType != pb.MountType_BIND {
		x.fail(x.op, ErrUnsupported, "a root file system that is a %s mount", strings.ToLower(m.MountType.String()))
		return
	}
	if m.ResultID != "" {
		x.fail(x.op, ErrUnsupported, "the root file system of another build")
		return
	}
	v, ok := x.input(x.op, m.Input)
	if !ok {
		return
	}
	x.inputs[0] = v
	x.out.RootReadOnly = m.Readonly
	x.out.RootDiscard = !m.Readonly && m.Output == int64(pb.SkipOutput)
	if s := path.Clean("/" + m.Selector); s != "/" {
		if !x.out.RootReadOnly && !x.out.RootDiscard {
			x.fail(x.op, ErrUnsupported, "a part (%s) of a file system as the root whose changes are kept", s)
		}
		x.out.RootSource = s
	}
	if m.Output != int64(pb.SkipOutput) {
		x.outputs[m.Output] = execOutput{root: true}
	}
}

func (x *execDecoder) mount(m *pb.Mount) {
	out := graph.Mount{Target: m.Dest}
	switch m.MountType {
	case pb.MountType_BIND:
		x.bind(m, &out)
	case pb.MountType_TMPFS:
		out.Type, out.Size = graph.MountTmpfs, m.TmpfsOpt.GetSize()
	case pb.MountType_CACHE:
		x.cache(m, &out)
	case pb.MountType_SECRET:
		s := m.SecretOpt
		if s == nil || s.ID == "" {
			x.fail(x.op, ErrInvalid, "secret mount %s without an id", m.Dest)
			return
		}
		mode := s.Mode & 0o777
		out.Type, out.ID, out.UID, out.GID, out.Mode, out.Required = graph.MountSecret, s.ID, int(s.Uid), int(s.Gid), &mode, !s.Optional
		if out.Target == "" {
			out.Target = "/run/secrets/" + path.Base(s.ID)
		}
	case pb.MountType_SSH:
		s := m.SSHOpt
		if s == nil {
			x.fail(x.op, ErrInvalid, "ssh mount %s without options", m.Dest)
			return
		}
		mode := s.Mode & 0o777
		out.Type, out.ID, out.UID, out.GID, out.Mode, out.Required = graph.MountSSH, s.ID, int(s.Uid), int(s.Gid), &mode, !s.Optional
	default:
		x.fail(x.op, ErrUnsupported, "mount %s of type %s", m.Dest, m.MountType)
		return
	}
	x.out.Mounts = append(x.out.Mounts, out)
}

func (x *execDecoder) bind(m *pb.Mount, out *graph.Mount) {
	v, ok := x.input(x.op, m.Input)
	if !ok {
		return
	}
	out.Type, out.Input, out.Source, out.Writable = graph.MountBind, x.add(v), source(m.Selector), !m.Readonly
	if m.Output != int64(pb.SkipOutput) {
		if m.Output < 0 {
			x.fail(x.op, ErrInvalid, "mount %s: output %d", m.Dest, m.Output)
		}
		if _, twice := x.outputs[m.Output]; twice {
			x.fail(x.op, ErrInvalid, "two mounts are output %d", m.Output)
		}
		if m.Readonly {
			x.outputs[m.Output] = execOutput{readOnly: true, unchanged: v}
		} else {
			x.outputs[m.Output] = execOutput{}
			out.Output = outputNumber(m.Output)
		}
	}
	switch m.ContentCache {
	case pb.MountContentCache_DEFAULT:
	case pb.MountContentCache_ON:
		out.Keyed = graph.KeyedByContent
	case pb.MountContentCache_OFF:
		out.Keyed = graph.KeyedByInput
	default:
		x.fail(x.op, ErrUnsupported, "mount %s: content cache %s", m.Dest, m.ContentCache)
	}
}

func (x *execDecoder) cache(m *pb.Mount, out *graph.Mount) {
	if m.CacheOpt == nil {
		x.fail(x.op, ErrInvalid, "cache mount %s without options", m.Dest)
		return
	}
	if m.Output != int64(pb.SkipOutput) {
		x.fail(x.op, ErrInvalid, "cache mount %s is output %d", m.Dest, m.Output)
	}
	v, ok := x.input(x.op, m.Input)
	if !ok {
		return
	}
	out.Type, out.ID, out.Input, out.Source, out.ReadOnly = graph.MountCache, m.CacheOpt.ID, x.add(v), source(m.Selector), m.Readonly
	if out.ID == "" {
		out.ID = m.Dest
	}
	switch m.CacheOpt.Sharing {
	case pb.CacheSharingOpt_SHARED:
		out.Sharing = "shared"
	case pb.CacheSharingOpt_PRIVATE:
		out.Sharing = "private"
	case pb.CacheSharingOpt_LOCKED:
		out.Sharing = "locked"
	default:
		x.fail(x.op, ErrUnsupported, "cache mount %s: sharing %s", m.Dest, m.CacheOpt.Sharing)
	}
}

// source is a selector as the graph has it: "" is all.
func source(selector string) string {
	if s := path.Clean("/" + selector); s != "/" {
		return s
	}
	return ""
}

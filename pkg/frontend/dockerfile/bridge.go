package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	apipb "github.com/moby/buildkit/util/apicaps/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	mllb "github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// bridge is the client that BuildKit's frontend talks to. It is safe for concurrent use: platforms are read side by side.
type bridge struct {
	o    Options
	in   *input
	opts map[string]string

	mu     sync.Mutex // guards warned and failed, and calls of o.Capture
	warned []warning
	failed error     // what the frontend went on after, and must not
	shown  *sync.Map // names of the loads that were shown: each once, whoever asks again
}

type warning struct {
	line int
	text string
}

var _ client.Client = (*bridge)(nil)

// sessionID is the session of all local sources. It is part of LLB's digests, and so always the same.
const sessionID = "manifestctl"

// BuildOpts implements client.Client.
func (b *bridge) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		Opts: maps.Clone(b.opts), SessionID: sessionID, Product: "manifestctl",
		Workers: []client.WorkerInfo{{ID: "local", Platforms: []ocispec.Platform{b.o.Machine.OCI()}}},
		LLBCaps: mllb.Caps(), Caps: gatewayCaps(),
	}
}

// gatewayCaps are those of BuildKit's gateway without what is not there: inputs of other frontends, and containers.
func gatewayCaps() apicaps.CapSet {
	var have []*apipb.APICap
	for _, c := range gwpb.Caps.All() {
		if id := string(c.ID); id != string(gwpb.CapFrontendInputs) && !strings.HasPrefix(id, "gateway.exec") {
			have = append(have, c)
		}
	}
	return gwpb.Caps.CapSet(have)
}

// Solve implements client.Client: it reads a definition into a graph, or runs the frontend again that a syntax line names.
func (b *bridge) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "" {
		return b.forward(ctx, req)
	}
	res := client.NewResult()
	if req.Definition == nil || len(req.Definition.Def) == 0 {
		res.SetRef(&reference{b: b})
		return res, nil
	}
	v, err := mllb.Decode(req.Definition, b.decoding())
	if err != nil {
		return nil, err
	}
	isLocal, isSource := false, false
	if v != nil {
		switch v.Op.(type) {
		case graph.Local:
			isLocal, isSource = true, true
		case graph.Git, graph.HTTP: // the frontend looks into them
			isSource = true
		}
	}
	if isLocal {
		b.loaded(v)
	}
	if !isSource && b.o.Capture != nil {
		b.mu.Lock()
		b.o.Capture(req.Definition)
		b.mu.Unlock()
	}
	res.SetRef(&reference{b: b, vertex: v})
	return res, nil
}

// loaded shows that files of a context are looked at, in BuildKit's words.
func (b *bridge) loaded(v *graph.Vertex) {
	name := v.Meta.Name
	if _, again := b.shown.LoadOrStore(name, true); again {
		return
	}
	e := event.Event{Kind: event.VertexStart, ID: "read " + name, Name: name}
	b.o.Events.Emit(e)
	e.Kind = event.VertexDone
	b.o.Events.Emit(e)
}

// builtins are the repositories of the frontend that is built in.
var builtins = []string{"docker/dockerfile", "docker/dockerfile-upstream"}

// forward runs the built-in frontend for a syntax line that names it.
func (b *bridge) forward(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	source := req.FrontendOpt["source"]
	name, _, _ := strings.Cut(source, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	known := false
	for _, builtin := range builtins {
		known = known || name == builtin || strings.HasSuffix(name, "/"+builtin)
	}
	if req.Frontend != "gateway.v0" || !known {
		return nil, fmt.Errorf("%w: the frontend %q: only docker/dockerfile is built in, and others are programs of their own that need BuildKit",
			mllb.ErrUnsupported, source)
	}
	again := &bridge{o: b.o, in: b.in, opts: req.FrontendOpt, shown: b.shown}
	res, err := builder.Build(ctx, again)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warned = append(b.warned, again.warned...)
	if err == nil {
		err = again.failed
	}
	return res, err
}

// refuse fails the build although the frontend goes on.
func (b *bridge) refuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = err
	}
}

// ResolveImageConfig implements client.Client.
func (b *bridge) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	name := opt.LogName
	if name == "" {
		name = "[internal] load metadata for " + ref
	}
	e := event.Event{Kind: event.VertexStart, ID: name, Name: name}
	b.o.Events.Emit(e)
	pinned, dgst, config, err := b.resolve(ctx, ref, opt)
	e.Kind = event.VertexDone
	if err != nil {
		e.Error, e.Canceled = err.Error(), context.Cause(ctx) != nil
	}
	b.o.Events.Emit(e)
	return pinned, dgst, config, err
}

func (b *bridge) resolve(ctx context.Context, name string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	at, pull, layout := b.o.Machine.OCI(), b.o.Pull, ""
	switch {
	case opt.OCILayoutOpt != nil:
		if p := opt.OCILayoutOpt.Platform; p != nil {
			at = *p
		}
		layout = opt.OCILayoutOpt.Store.StoreID
	case opt.ImageOpt != nil:
		if p := opt.ImageOpt.Platform; p != nil {
			at = *p
		}
		pull = pull || opt.ImageOpt.ResolveMode == pb.AttrImageResolveModeForcePull
	}
	p, err := platform.FromOCI(at)
	if err != nil {
		return "", "", nil, err
	}
	if layout != "" {
		_, want, _ := strings.Cut(name, "@")
		ref, ok := b.in.refs[layout]
		if !ok {
			return "", "", nil, fmt.Errorf("%w: there is no OCI layout %q", ErrInput, layout)
		}
		dgst, config, err := b.o.Host.Image(ctx, ref+"@"+want, p, false)
		return name, dgst, config, ofHost(err)
	}
	dgst, config, err := b.o.Host.Image(ctx, name, p, pull)
	if err != nil {
		return "", "", nil, ofHost(err)
	}
	if !strings.Contains(name, "@") {
		name += "@" + dgst.String()
	}
	return name, dgst, config, nil
}

// Inputs implements client.Client: there are none.
func (b *bridge) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

// NewContainer implements client.Client.
func (b *bridge) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, errors.ErrUnsupported
}

// leftOut warns of something that a step will not have.
func (b *bridge) leftOut(source, text string) {
	w := warning{text: source + ": " + text}
	if _, line, ok := strings.Cut(source, ":"); ok {
		w.line, _ = strconv.Atoi(line)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warned = append(b.warned, w)
}

// Warn implements client.Client.
func (b *bridge) Warn(_ context.Context, _ digest.Digest, msg string, opts client.WarnOpts) error {
	w := warning{text: msg}
	file := b.in.file
	if opts.SourceInfo != nil && opts.SourceInfo.Filename != "" {
		file = opts.SourceInfo.Filename
	}
	if len(opts.Range) > 0 {
		w.line = int(opts.Range[0].GetStart().GetLine())
	}
	if w.line > 0 {
		// The frontend's text ends with its line, for displays that have none.
		w.text = fmt.Sprintf("%s:%d: %s", file, w.line, strings.TrimSuffix(msg, fmt.Sprintf(" (line %d)", w.line)))
	}
	if opts.URL != "" {
		w.text += " (" + opts.URL + ")"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warned = append(b.warned, w)
	return nil
}

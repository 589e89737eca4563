// Package dockerfile is the frontend for Dockerfiles: BuildKit's own, run in this process. It answers what that
// asks (files of contexts, configs of images) and reads the LLB that it writes into a graph; nothing is run here.
//
// # Invariants
//
//   - What a Dockerfile means is decided by BuildKit's frontend alone; nothing here reads a Dockerfile.
//   - Every mistake in a Dockerfile is an [*Error] with its lines.
//   - Files of a local context are read inside of it ([os.Root]), whatever symlinks it holds.
package dockerfile

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Host is what the frontend needs of the rest of the program.
type Host interface {
	// Image resolves ref (normalised, with a tag or digest) to the digest of its manifest or index, and the config of
	// its image for p.
	Image(ctx context.Context, ref string, p platform.Platform, pull bool) (digest.Digest, []byte, error)
	// Origin is what git or a server says of the source v.
	Origin(ctx context.Context, v *graph.Vertex) (Origin, error)
	// Open solves v and gives its files; dirs are the local contexts by name. It is called for remote contexts only.
	Open(ctx context.Context, v *graph.Vertex, dirs map[string]string) (fs.FS, error)
}

// Origin is what the place that a source comes from says of it; the fields of other kinds of sources are zero.
type Origin struct {
	Commit       string // of git: hex
	Object       []byte // of git: the commit as git keeps it
	Digest       digest.Digest
	LastModified *time.Time // of http; nil when the server does not say
}

// Options is everything that the command line says. Host and Machine are required.
type Options struct {
	Input
	Platforms     []platform.Platform // none: Machine
	Machine       platform.Platform   // what this machine is: BUILDPLATFORM, and the default target
	Target        string
	Args          map[string]string
	Labels        map[string]string
	NoCache       bool     // of all stages
	NoCacheFilter []string // of these stages
	Pull          bool
	Hosts         []string // NAME=IP
	ShmSize       int64    // bytes of /dev/shm; 0 is the default
	Ulimits       []string // NAME=SOFT[:HARD]
	Network       string   // of every RUN that names none: "", default, host or none
	Hostname      string
	Proxy         *graph.Proxy // the caller's, for every RUN that is given no other
	Allow         llb.Allow
	Devices       func(name string) []llb.Device // of this machine; nil: none
	Events        event.Sink
	Host          Host
	// Capture is called with the definition of each platform, before it is read into a graph; nil: not.
	Capture func(*llb.Definition)
}

// Build gives the graph of a Dockerfile for all platforms.
func Build(ctx context.Context, o Options) (*graph.Build, error) {
	b, res, err := run(ctx, o, "")
	if err != nil {
		return nil, err
	}
	targets, err := b.targets(res)
	if err != nil {
		return nil, err
	}
	return &graph.Build{Targets: targets, Contexts: maps.Clone(b.in.dirs), Warnings: b.warnings()}, nil
}

// run calls BuildKit's frontend; request is the name of a subrequest, "" builds.
func run(ctx context.Context, o Options, request string) (*bridge, *client.Result, error) {
	in, err := o.Input.resolve()
	if err != nil {
		return nil, nil, err
	}
	b := &bridge{o: o, in: in, opts: attributes(o, in), shown: &sync.Map{}}
	if request != "" {
		b.opts["requestid"] = request
	}
	res, err := builder.Build(ctx, b)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if err == nil {
		err = b.failed
	}
	if err != nil {
		return nil, nil, b.explain(err)
	}
	return b, res, nil
}

// targets reads the frontend's result.
func (b *bridge) targets(res *client.Result) ([]graph.Target, error) {
	var platforms exptypes.Platforms
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterPlatformsKey], &platforms); err != nil {
		return nil, fmt.Errorf("reading the platforms of the frontend's result: %w", err)
	}
	out := make([]graph.Target, 0, len(platforms.Platforms))
	for _, p := range platforms.Platforms {
		t, err := b.target(res, p)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (b *bridge) target(res *client.Result, p exptypes.Platform) (graph.Target, error) {
	ref, suffix := res.Ref, ""
	if len(res.Refs) > 0 {
		ref, suffix = res.Refs[p.ID], "/"+p.ID
	}
	of, err := platform.FromOCI(p.Platform)
	if err != nil {
		return graph.Target{}, err
	}
	t := graph.Target{Platform: of, Image: &graph.ImageConfig{
		Raw: res.Metadata[exptypes.ExporterImageConfigKey+suffix], Base: res.Metadata[exptypes.ExporterImageBaseConfigKey+suffix],
	}}
	if text := res.Metadata[commonexptypes.ExporterEpochKey+suffix]; len(text) > 0 {
		seconds, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return graph.Target{}, fmt.Errorf("the frontend's SOURCE_DATE_EPOCH %q: %w", text, err)
		}
		t.Image.Epoch = &seconds
	}
	if r, ok := ref.(*reference); ok && r != nil {
		t.Root = r.vertex
	}
	return t, nil
}

// warnings are the frontend's, each once and in the order of their lines.
func (b *bridge) warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortStableFunc(b.warned, func(x, y warning) int { return x.line - y.line })
	var out []string
	for _, w := range b.warned {
		if !slices.Contains(out, w.text) {
			out = append(out, w.text)
		}
	}
	return out
}

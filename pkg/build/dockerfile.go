package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// IsRemoteContext reports whether a context is the URL of a git repository or an archive rather than a directory.
func IsRemoteContext(context string) bool { return dockerfile.IsRemote(context) }

// dockerfile is everything that the frontend wants to know.
func (e *engine) dockerfile(ctx context.Context) (dockerfile.Options, error) {
	d := e.req.Dockerfile
	contexts, err := e.namedContexts(ctx)
	if err != nil {
		return dockerfile.Options{}, err
	}
	return dockerfile.Options{
		Input: dockerfile.Input{
			Context: e.req.ContextDir, Archive: d.Archive, File: e.req.File, Local: d.Local, Contexts: contexts,
		},
		Platforms: e.req.Platforms, Machine: emulate.Machine(), Target: d.Target, Args: e.req.Args, Labels: e.req.Labels,
		NoCache: e.o.NoCache, NoCacheFilter: d.NoCacheFilter, Pull: e.o.Pull, Hosts: d.Hosts, ShmSize: d.ShmSize,
		Ulimits: d.Ulimits, Network: d.Network, Proxy: proxy(d.Proxy), Allow: d.Allow, Devices: e.devicesNamed, Events: e.o.Events,
		Host: &dockerfileHost{engine: e},
	}, nil
}

func proxy(p map[string]string) *graph.Proxy {
	out := graph.Proxy{HTTP: p["HTTP_PROXY"], HTTPS: p["HTTPS_PROXY"], FTP: p["FTP_PROXY"], No: p["NO_PROXY"], All: p["ALL_PROXY"]}
	if out == (graph.Proxy{}) {
		return nil
	}
	return &out
}

// namedContexts reads --build-context. What is no directory, image or URL for the frontend is a reference of ours: the store,
// a layout or an archive.
func (e *engine) namedContexts(ctx context.Context) (map[string]dockerfile.Context, error) {
	out := map[string]dockerfile.Context{}
	for name, value := range e.req.Contexts {
		c := dockerfile.Context{Value: value}
		if isReference(value) {
			r, err := ref.Parse(value)
			if err != nil {
				return nil, fmt.Errorf("context %s: %w", name, err)
			}
			if c.Digest, err = e.pinned(ctx, r); err != nil {
				return nil, fmt.Errorf("context %s: %w", name, err)
			}
			r.Digest = ""
			c.Ref = r.String()
		}
		out[name] = c
	}
	return out, nil
}

// pinned is the digest of what r names, or of what is locked for it.
func (e *engine) pinned(ctx context.Context, r ref.Ref) (_ digest.Digest, err error) {
	if r.Digest == "" {
		if d, err := e.pins.Pin(r.String()); err != nil || d != "" {
			return d, err
		}
	} else {
		return r.Digest, nil
	}
	img, err := e.opener.Open(ctx, r)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	return img.Root().Digest, nil
}

// isReference reports whether a named context is an image outside of registries.
func isReference(value string) bool {
	for _, scheme := range []string{"oci-layout://", "ocidir://", "oci:", "oci-archive:", "docker-archive:", "store:"} {
		if strings.HasPrefix(value, scheme) {
			return true
		}
	}
	return false
}

// dockerfileHost answers what the frontend asks.
type dockerfileHost struct {
	*engine
	once sync.Once // fills contexts
}

var _ dockerfile.Host = (*dockerfileHost)(nil)

// Image implements dockerfile.Host.
func (h *dockerfileHost) Image(ctx context.Context, name string, p platform.Platform, _ bool) (digest.Digest, []byte, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return "", nil, err
	}
	return h.worker.Resolve(ctx, r.String(), p)
}

// Origin implements dockerfile.Host.
func (h *dockerfileHost) Origin(ctx context.Context, v *graph.Vertex) (dockerfile.Origin, error) {
	o, err := h.worker.Origin(ctx, v.Op)
	return dockerfile.Origin{Commit: o.Commit, Object: o.Object, Digest: o.Digest, LastModified: o.LastModified}, err
}

// Open implements dockerfile.Host.
func (h *dockerfileHost) Open(ctx context.Context, v *graph.Vertex, dirs map[string]string) (fs.FS, error) {
	h.once.Do(func() { maps.Copy(h.contexts, dirs) })
	results, err := h.solver.Solve(ctx, []*graph.Vertex{v})
	if err != nil {
		return nil, err
	}
	return h.worker.Files(results[0])
}

// definition reads a definition of LLB for one platform.
func (e *engine) definition() (*graph.Build, error) {
	def, err := llb.Read(e.req.LLB)
	if err != nil {
		return nil, err
	}
	p := emulate.Machine()
	switch len(e.req.Platforms) {
	case 0:
	case 1:
		p = e.req.Platforms[0]
	default:
		return nil, fmt.Errorf("%w: a definition is for one platform, not for %d", ErrLLB, len(e.req.Platforms))
	}
	b := &graph.Build{Contexts: map[string]string{"context": e.req.ContextDir, "dockerfile": e.req.ContextDir}}
	layouts := map[string]string{}
	for name, value := range e.req.Contexts {
		if isReference(value) {
			layouts[name] = value
			continue
		}
		b.Contexts[name] = value
	}
	o := llb.Options{
		Platform: p, Devices: e.devicesNamed,
		Warn: func(source, text string) { b.Warnings = append(b.Warnings, source+": "+text) },
		Layout: func(name string, d digest.Digest) (string, bool) {
			r, err := ref.Parse(layouts[name])
			return r.WithDigest(d).String(), err == nil
		},
	}
	if d := e.req.Dockerfile; d != nil {
		o.Allow, o.Proxy = d.Allow, proxy(d.Proxy)
	}
	root, err := llb.Decode(def, o)
	if err != nil {
		return nil, err
	}
	config, err := defaultConfig(p)
	if err != nil {
		return nil, err
	}
	b.Targets = []graph.Target{{Platform: p, Root: root, Image: &graph.ImageConfig{Raw: config, Epoch: e.req.Epoch}}}
	return b, nil
}

// defaultConfig is the config of an image that nobody said anything of, as BuildKit's.
func defaultConfig(p platform.Platform) ([]byte, error) {
	var c ocispec.Image
	oci := p.OCI()
	c.Architecture, c.OS, c.Variant, c.OSVersion, c.OSFeatures = oci.Architecture, oci.OS, oci.Variant, oci.OSVersion, oci.OSFeatures
	c.RootFS.Type = "layers"
	c.Config.WorkingDir = "/"
	if oci.OS != "windows" {
		c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("making a config: %w", err)
	}
	return b, nil
}

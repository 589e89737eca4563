package build

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// loadDockerfile makes the graph of a Dockerfile. The frontend asks registries for the configs of bases before the graph is known;
// where this host runs no processes, it is first found out without them whether the graph has any.
func (e *engine) loadDockerfile(ctx context.Context) (*graph.Build, error) {
	o, err := e.dockerfile(ctx)
	if err != nil {
		return nil, err
	}
	if e.fleet == nil && e.mayRun() {
		if hostErr := e.worker.Ready(ctx); hostErr != nil {
			blind := o
			blind.Host, blind.Events = blindHost{o.Host}, nil
			b, err := dockerfile.Build(ctx, blind)
			if err == nil {
				for v := range processes(b.Targets) {
					return nil, fmt.Errorf("%s: %s: %w", v.Meta.Source, v.Meta.Name, hostErr)
				}
			}
		}
	}
	return e.readDockerfile(ctx, o)
}

// mayRun reports whether a Dockerfile may have a RUN: it has the word, or it cannot be read here.
func (e *engine) mayRun() bool {
	text, err := os.ReadFile(e.req.File)
	return err != nil || bytes.Contains(bytes.ToUpper(text), []byte("RUN"))
}

// blindHost knows nothing of images: each has a config that says only what it is for.
type blindHost struct{ dockerfile.Host }

// Image implements dockerfile.Host.
func (blindHost) Image(_ context.Context, ref string, p platform.Platform, _ bool) (digest.Digest, []byte, error) {
	config, err := defaultConfig(p)
	return digest.FromString(ref), config, err
}

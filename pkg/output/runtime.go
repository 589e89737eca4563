package output

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/runtimes"
)

// OpenRuntime is the destination that a container runtime is, and the form it takes images in.
func OpenRuntime(rt runtimes.Runtime, env Env) (Spec, Destination) {
	spec := Spec{Type: "runtime", Dest: rt.String()}
	if rt.Expands() {
		spec.Compression = layer.Compression{Algorithm: layer.Uncompressed}
	}
	return spec, &engine{rt: rt, env: env, spec: spec}
}

// engine is a container runtime on this machine, or one that is spoken to from it.
type engine struct {
	rt   runtimes.Runtime
	env  Env
	spec Spec
}

var _ PlatformChecker = (*engine)(nil)

// CheckPlatforms implements PlatformChecker. That not all are taken is said aloud.
func (r *engine) CheckPlatforms(ps []platform.Platform) error {
	keep, why, err := r.rt.Holds(ps)
	if err != nil {
		return err
	}
	if len(keep) == len(ps) {
		return nil
	}
	taken := map[int]bool{}
	var loads, leaves []string
	for _, i := range keep {
		taken[i] = true
		loads = append(loads, ps[i].String())
	}
	for i, p := range ps {
		if !taken[i] {
			leaves = append(leaves, p.String())
		}
	}
	r.env.Events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%s: %s is loaded, and %s is not", why, strings.Join(loads, ", "), strings.Join(leaves, ", "))})
	return nil
}

// Write implements Destination.
func (r *engine) Write(ctx context.Context, p Product) error {
	ps := make([]platform.Platform, len(p.Images))
	for i, img := range p.Images {
		ps[i] = img.Platform
	}
	keep, _, err := r.rt.Holds(ps)
	if err != nil {
		return err
	}
	b := runtimes.Bundle{
		Note: func(text string) { r.env.Events.Emit(event.Event{Kind: event.Warning, Text: text}) },
		OCI: func(ctx context.Context, w io.Writer, i int, named bool) error {
			part := p
			if i != runtimes.All {
				part = only(p, keep[i])
			}
			if !named {
				part.Names = nil
			}
			return (&ociArchive{spec: r.spec, env: r.env, file: file{stdout: w}}).Write(ctx, part)
		},
		Docker: func(ctx context.Context, w io.Writer, i int) error {
			return (&dockerArchive{spec: r.spec, env: r.env, file: file{stdout: w}}).Write(ctx, only(p, keep[i]))
		},
	}
	for _, i := range keep {
		b.Images = append(b.Images, runtimes.Image{Platform: ps[i], ID: p.Images[i].CfgDesc.Digest.String()})
	}
	for _, n := range p.Names {
		if n.Kind == ref.Registry && n.Tag != "" {
			b.Names = append(b.Names, n.String())
		}
	}
	return r.rt.Load(ctx, b)
}

// only is the part of a product that one image is.
func only(p Product, i int) Product {
	img := p.Images[i]
	p.Images, p.Root, p.Raw = []image.Image{img}, img.Desc, img.Manifest
	p.Root.Annotations = nil
	return p
}

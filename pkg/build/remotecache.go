package build

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// steps remembers what became of vertices.
type steps struct {
	mu   sync.Mutex // guards done
	done map[digest.Digest]solved
}

type solved struct {
	key    digest.Digest // "" when there is no record
	record solve.Record
	result solve.Result
}

func (s *steps) add(v *graph.Vertex, key digest.Digest, record solve.Record, result solve.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[v.Digest()] = solved{key, record, result}
}

// below gives what became of all that root needs, or with chain only of the layers that root consists of.
func (s *steps) below(root *graph.Vertex, chain bool) []solved {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []solved
	seen := map[digest.Digest]bool{}
	todo := []*graph.Vertex{root}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if v == nil || seen[v.Digest()] {
			continue
		}
		seen[v.Digest()] = true
		if one, ok := s.done[v.Digest()]; ok {
			out = append(out, one)
		}
		switch {
		case !chain:
			todo = append(todo, v.Inputs...)
		case len(v.Inputs) > 0:
			todo = append(todo, v.Inputs[0])
		}
	}
	return out
}

// records are the steps among what became of vertices.
func records(all []solved) []remotecache.Step {
	var out []remotecache.Step
	for _, s := range all {
		if s.key != "" {
			out = append(out, remotecache.Step{Key: s.key, Record: s.record})
		}
	}
	return out
}

// inlineRecords are the further keys of the config of a target's image.
func (f *finisher) inlineRecords(target int, form form) (map[string]json.RawMessage, error) {
	if !f.inline {
		return nil, nil
	}
	if form.compression.Algorithm == layer.EStargz {
		return nil, fmt.Errorf("%w: --cache-to type=inline needs layers as they are, and compression=estargz adds to them: use type=registry", output.ErrInvalid)
	}
	raw, err := remotecache.Inline(records(f.steps.below(f.build.Targets[target].Root, true)), form.compression.String())
	return map[string]json.RawMessage{remotecache.InlineKey: raw}, err
}

// export writes the records of the build to the places of specs, when everything else is written.
func (f *finisher) export(ctx context.Context, env transfer.Env, specs []remotecache.Spec, form form) error {
	for _, s := range specs {
		if s.Type == remotecache.TypeInline {
			continue
		}
		e := event.Event{Kind: event.VertexStart, ID: s.String(), Name: "exporting to " + s.String()}
		f.events.Emit(e)
		err := f.exportTo(ctx, env, s, form)
		e.Kind = event.VertexDone
		if err != nil {
			e.Error, e.Canceled = err.Error(), context.Cause(ctx) != nil
		}
		f.events.Emit(e)
		if err != nil && s.IgnoreError && context.Cause(ctx) == nil {
			f.events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("exporting to %v", err)})
			err = nil
		}
		if err != nil {
			return fmt.Errorf("exporting to %w", err)
		}
	}
	return nil
}

// checkCaches refuses caches under names that images get: the one would take the place of the other.
func checkCaches(o Options, plans []plan) error {
	for _, s := range o.CacheTo {
		for _, p := range plans {
			for _, n := range p.names {
				if s.Type == remotecache.TypeRegistry && p.pushes() && n.Host == s.Ref.Host && n.Repo == s.Ref.Repo && n.Tag == s.Ref.Tag {
					return fmt.Errorf("%w: --cache-to %s: the image gets this name: give the cache a tag of its own, or use type=inline", output.ErrInvalid, s.Ref)
				}
			}
		}
	}
	return nil
}

func (f *finisher) exportTo(ctx context.Context, env transfer.Env, s remotecache.Spec, form form) error {
	if err := remotecache.Check(ctx, env.Opener(), s); err != nil {
		return err
	}
	targets := make([]remotecache.Target, 0, len(f.build.Targets))
	for _, t := range f.build.Targets {
		all := f.steps.below(t.Root, !s.Max)
		out := remotecache.Target{Platform: t.Platform, Steps: records(all)}
		for _, one := range all {
			for l := range one.record.All() {
				known, err := f.exported(ctx, *l, form)
				if err != nil {
					return err
				}
				out.Layers = append(out.Layers, known)
			}
			if one.key == "" { // a base image: what is in its layers, not their bytes
				for _, l := range one.result.Layers {
					out.Layers = append(out.Layers, remotecache.Layer{DiffID: l.DiffID, Size: l.Size, Notes: remotecache.Notes(f.store, l.DiffID)})
				}
			}
		}
		targets = append(targets, out)
	}
	return remotecache.Export(ctx, env, s, targets, f.worker)
}

// exported is a layer that was made here in the form that it has in images.
func (f *finisher) exported(ctx context.Context, l solve.Layer, form form) (remotecache.Layer, error) {
	form.rewrite = false
	il, err := f.layer(ctx, l, form, nil)
	if err != nil {
		return remotecache.Layer{}, err
	}
	desc := ocispec.Descriptor{MediaType: il.Desc.MediaType, Digest: il.Desc.Digest, Size: il.Desc.Size}
	return remotecache.Layer{
		DiffID: l.DiffID, Size: l.Size, Blob: &desc, Compression: form.compression.String(), Notes: remotecache.Notes(f.store, l.DiffID),
	}, nil
}

// cacheForm is the form of the layers of exported records: that of the first output that has compressed layers, so that both
// are the same blobs.
func cacheForm(plans []plan) form {
	for _, p := range plans {
		f := formOf(p.spec)
		if f.compression.Algorithm == layer.EStargz { // its layers are not those of steps
			f.compression.Algorithm = layer.Gzip
		}
		if f.compression.Algorithm != layer.Uncompressed {
			return form{compression: f.compression}
		}
	}
	return form{}
}

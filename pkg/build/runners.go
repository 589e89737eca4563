package build

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// canRun finds what runs the processes of targets: by vertex, as [event.Event] names it. Every platform that has a process
// to run and no way to run it is an error; so is a host that runs none at all, which ready says. What is known against an
// emulator is a warning.
func canRun(
	ctx context.Context, targets []graph.Target, o emulate.Options, ready func(context.Context) error, events event.Sink,
) (map[string]string, error) {
	var errs []error
	runners := map[string]string{}
	support := map[platform.Platform]emulate.Support{}
	for v := range processes(targets) {
		if len(runners) == 0 {
			if err := ready(ctx); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", v.Meta.Source, v.Meta.Name, err)
			}
		}
		s, checked := support[v.Platform]
		if !checked {
			var err error
			if s, err = emulate.For(ctx, v.Platform, o); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", v.Meta.Source, v.Meta.Name, err))
			}
			support[v.Platform] = s
			if s.Warning != "" {
				events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%s runs under %s (%s): %s", v.Platform, s.Path, s.Version, s.Warning)})
			}
		}
		runners[v.Digest().String()] = runner(s)
	}
	return runners, errors.Join(errs...)
}

// processes are the vertices of targets that run one.
func processes(targets []graph.Target) iter.Seq2[*graph.Vertex, graph.Exec] {
	return func(yield func(*graph.Vertex, graph.Exec) bool) {
		seen := map[*graph.Vertex]bool{}
		var visit func(v *graph.Vertex) bool
		visit = func(v *graph.Vertex) bool {
			if v == nil || seen[v] {
				return true
			}
			seen[v] = true
			if op, ok := v.Op.(graph.Exec); ok && !yield(v, op) {
				return false
			}
			for _, in := range v.Inputs {
				if !visit(in) {
					return false
				}
			}
			return true
		}
		for _, t := range targets {
			if !visit(t.Root) {
				return
			}
		}
	}
}

// droppedCaches are the ids of the cache mounts of steps that must run whatever was recorded: these begin with nothing as well.
func droppedCaches(targets []graph.Target, all bool) []string {
	var ids []string
	for v, op := range processes(targets) {
		if !all && !v.Meta.NoCache {
			continue
		}
		for _, m := range op.Mounts {
			if m.Type == graph.MountCache && !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	}
	return ids
}

// runner names what runs a platform's processes.
func runner(s emulate.Support) string {
	if s.How == emulate.Native {
		return event.RunnerNative
	}
	name := strings.TrimSuffix(filepath.Base(s.Path), "-static")
	if s.Path == "" {
		name = "the host's handler"
	}
	return strings.TrimSpace(name + " " + s.Version)
}

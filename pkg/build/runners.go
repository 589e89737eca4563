package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// canRun finds what runs the processes of targets: by vertex, as [event.Event] names it. Every platform that has a process
// to run and no way to run it is an error.
func canRun(ctx context.Context, targets []graph.Target, o emulate.Options) (map[string]string, error) {
	var errs []error
	runners := map[string]string{}
	support := map[platform.Platform]emulate.Support{}
	seen := map[*graph.Vertex]bool{}
	var visit func(v *graph.Vertex)
	visit = func(v *graph.Vertex) {
		if v == nil || seen[v] {
			return
		}
		seen[v] = true
		if _, ok := v.Op.(graph.Exec); ok {
			s, checked := support[v.Platform]
			if !checked {
				var err error
				if s, err = emulate.For(ctx, v.Platform, o); err != nil {
					errs = append(errs, fmt.Errorf("%s: %s: %w", v.Meta.Source, v.Meta.Name, err))
				}
				support[v.Platform] = s
			}
			runners[v.Digest().String()] = runner(s)
		}
		for _, in := range v.Inputs {
			visit(in)
		}
	}
	for _, t := range targets {
		visit(t.Root)
	}
	return runners, errors.Join(errs...)
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

package local

import (
	"fmt"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
)

// devices adds what comes with the devices of a step: nodes and files of this machine, and variables.
func (w *Worker) devices(step *sandbox.Step, op graph.Exec) error {
	for _, name := range op.Devices {
		if w.o.Device == nil {
			return fmt.Errorf("%w: device %q", ErrNotAllowed, name)
		}
		e, ok := w.o.Device(name)
		if !ok {
			return fmt.Errorf("device %q: no CDI file describes it any more", name)
		}
		if len(e.Hooks) > 0 {
			w.o.Events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("device %s: programs that its CDI file names are not run: %s", name, strings.Join(e.Hooks, ", "))})
		}
		step.Env = mergeEnv(step.Env, e.Env)
		for _, n := range e.Nodes {
			step.Mounts = append(step.Mounts, sandbox.Mount{Kind: sandbox.MountDevice, Target: n.Path, Source: n.HostPath})
		}
		for _, m := range e.Mounts {
			step.Mounts = append(step.Mounts, sandbox.Mount{Kind: sandbox.MountDir, Target: m.Path, Source: m.HostPath, ReadOnly: m.ReadOnly})
		}
	}
	return nil
}

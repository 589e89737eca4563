package local

import (
	"context"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// mounts adds op's mounts to step and returns what gives back the locks they hold.
func (w *Worker) mounts(ctx context.Context, step *sandbox.Step, op graph.Exec, inputs []solve.Result) (_ func(), err error) {
	var held []func()
	release := func() {
		for _, f := range held {
			f()
		}
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	for _, m := range op.Mounts {
		out := sandbox.Mount{Target: m.Target, UID: m.UID, GID: m.GID, Size: m.Size}
		if m.Mode != nil {
			out.Mode = *m.Mode
		}
		switch m.Type {
		case graph.MountBind:
			if w.pool.Whole() {
				out.Kind, out.Movable = sandbox.MountDir, true
				if out.Source, err = w.trees.copied(ctx, m.Source, mountInput(inputs, m)); err != nil {
					return nil, fmt.Errorf("bind mount at %s: %w", m.Target, err)
				}
				break
			}
			out.Kind, out.Sub, out.ReadOnly = sandbox.MountOverlay, m.Source, !m.Writable
			if out.Lowers, err = w.trees.lowers(ctx, mountInput(inputs, m).Layers); err != nil {
				return nil, err
			}
		case graph.MountTmpfs:
			out.Kind = sandbox.MountTmpfs
		case graph.MountCache:
			dir, unlock, err := w.trees.cacheDir(ctx, m, inputs)
			if err != nil {
				return nil, err
			}
			held = append(held, unlock)
			out.Kind, out.Source, out.ReadOnly, out.Movable = sandbox.MountDir, dir, m.ReadOnly, true
		case graph.MountSSH:
			socket, closeSocket, err := w.agentSocket(m)
			if err != nil {
				return nil, err
			}
			if socket == "" {
				continue
			}
			held = append(held, closeSocket)
			out.Kind, out.Source = sandbox.MountSocket, socket
		case graph.MountSecret:
			data, ok, err := w.secret(m)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if m.Env != "" {
				step.Env = mergeEnv(step.Env, []string{m.Env + "=" + string(data)})
			}
			if m.Target == "" {
				continue
			}
			out.Kind, out.Data, out.ReadOnly = sandbox.MountData, data, true
			if m.Mode == nil {
				out.Mode = 0o400
			}
		default:
			return nil, fmt.Errorf("mount at %s: unknown type %q", m.Target, m.Type)
		}
		step.Mounts = append(step.Mounts, out)
	}
	return release, nil
}

// secret returns a secret's bytes; ok is false when it was not given and need not be.
func (w *Worker) secret(m graph.Mount) (data []byte, ok bool, err error) {
	if w.o.Secret != nil {
		if data, ok, err = w.o.Secret(m.ID); err != nil {
			return nil, false, fmt.Errorf("secret %q: %w", m.ID, err)
		}
	}
	if !ok && m.Required {
		return nil, false, fmt.Errorf("%w %q: give it with --secret id=%s,src=FILE", ErrSecret, m.ID, m.ID)
	}
	return data, ok, nil
}

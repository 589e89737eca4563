package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// execRevision is another one when the layer of a step that has not changed becomes another, so that none is taken from a
// cache that an older program filled.
var execRevision = digest.FromString("4: devices are seen as devices")

// execKey is the content of the rootfs and of what is mounted from elsewhere. Secrets and cache mounts are never in it.
func (w *Worker) execKey(ctx context.Context, v *graph.Vertex, op graph.Exec, inputs []solve.Result) (digest.Digest, error) {
	parts := []digest.Digest{execRevision, inputAt(inputs, 0).Identity()}
	for _, m := range op.Mounts {
		if m.Type != graph.MountBind {
			continue
		}
		if m.Keyed == graph.KeyedByInput || m.Keyed == "" && m.Output > 0 {
			parts = append(parts, mountInput(inputs, m).Identity(), digest.FromString(m.Source))
			continue
		}
		d, err := w.pathDigest(ctx, mountInput(inputs, m), m.Source)
		if err != nil {
			return "", fmt.Errorf("bind mount at %s: %w", m.Target, err)
		}
		parts = append(parts, d)
	}
	if w.accelerates(v) {
		tools, err := w.tools(ctx)
		if err != nil {
			return "", err
		}
		parts = append(parts, tools.Digest())
	}
	return digestOf(parts...), nil
}

// mountInput is what a mount begins with.
func mountInput(inputs []solve.Result, m graph.Mount) solve.Result {
	if m.Input == 0 {
		return solve.Result{}
	}
	return inputAt(inputs, m.Input)
}

func (w *Worker) pathDigest(ctx context.Context, r solve.Result, path string) (digest.Digest, error) {
	return w.memo(r, "tree "+path, func() (_ digest.Digest, err error) {
		view, err := w.View(ctx, r.Layers)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, view.Close()) }()
		n, err := view.Node(path, true)
		if err != nil {
			return "", err
		}
		return view.Digest(n.Path())
	})
}

// exec runs a process on the rootfs of inputs[0] and commits what it changed.
func (w *Worker) exec(ctx context.Context, v *graph.Vertex, op graph.Exec, inputs []solve.Result) (_ solve.Result, err error) {
	pool, err := w.sandbox(ctx)
	if err != nil {
		return solve.Result{}, err
	}
	if err := w.possible(op); err != nil {
		return solve.Result{}, err
	}
	base := inputAt(inputs, 0)
	step := sandbox.Step{
		Args: op.Args, HostNet: op.Network != graph.NetworkNone, Hostname: op.Hostname, ReadOnly: op.RootReadOnly,
		Insecure: op.Security == graph.SecurityInsecure, OKCodes: op.ExitCodes,
	}
	for _, h := range op.Hosts {
		step.Hosts = append(step.Hosts, sandbox.Host{IP: h.IP, Name: h.Name})
	}
	for _, u := range op.Ulimits {
		step.Ulimits = append(step.Ulimits, sandbox.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if op.ClampTime != nil {
		t := time.Unix(*op.ClampTime, 0)
		step.Clamp = &t
	}
	if err := w.process(ctx, &step, op, base); err != nil {
		return solve.Result{}, err
	}
	if err := w.devices(&step, op); err != nil {
		return solve.Result{}, err
	}
	release, err := w.mounts(ctx, &step, op, inputs)
	if err != nil {
		return solve.Result{}, err
	}
	defer release()

	dir, err := w.trees.scratch()
	if err != nil {
		return solve.Result{}, err
	}
	leave, err := w.rootfs(ctx, &step, dir, base.Layers)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	w.limit(&step, pool)
	log := &stepLog{w: w, v: v, left: w.o.LogLimit}
	step.Stdout, step.Stderr = log.stream(1), log.stream(2)
	emulated := watch(&step, v.Platform)
	plain := step.Lowers
	native, err := w.accelerate(ctx, v, &step, base.Layers)
	if err != nil {
		return solve.Result{}, err
	}
	step.Keep, step.KeepFailed = filepath.Join(dir, "fs"), w.o.OnError != nil
	if op.RootReadOnly || op.RootDiscard {
		return base, w.failed(ctx, v, step, emulated.explain(pool.Run(ctx, step)))
	}
	run := func() (solve.Layer, error) {
		l, err := w.commit(ctx, func(out io.Writer) error {
			step.Diff = out
			return emulated.explain(pool.Run(ctx, step))
		})
		if err != nil {
			return solve.Layer{}, w.failed(ctx, v, step, err)
		}
		return l, nil
	}
	l, err := run()
	if err == nil && native != nil {
		var name string
		if name, err = w.leaked(ctx, native, l); err == nil && name != "" {
			w.o.Events.Emit(event.Event{Kind: event.Warning, ID: v.Digest().String(), Text: fmt.Sprintf(
				"/%s in the step's layer is a native program or library (--accelerate): the step is run again without them", name)})
			if dir, err = w.trees.scratch(); err != nil {
				return solve.Result{}, err
			}
			if step.Scratch, err = w.trees.scratch(); err != nil {
				return solve.Result{}, err
			}
			step.Lowers, step.Keep = plain, filepath.Join(dir, "fs")
			l, err = run()
		}
	}
	if err != nil {
		return solve.Result{}, err
	}
	r := base.With(l)
	w.trees.keep(dir, r)
	return r, nil
}

// possible refuses what this worker does not do, or may not.
func (w *Worker) possible(op graph.Exec) error {
	switch {
	case op.Security == graph.SecurityInsecure && !w.o.Insecure:
		return fmt.Errorf("%w: security.insecure: allow it with --allow security.insecure", ErrNotAllowed)
	case op.RootSource != "" && op.RootSource != "/":
		return fmt.Errorf("%w: a directory of an input as the rootfs", errors.ErrUnsupported)
	case len(op.Outputs()) > 0:
		return fmt.Errorf("%w: a mount whose changes are a result", errors.ErrUnsupported)
	}
	return nil
}

// process sets the environment, directory and user of a step.
func (w *Worker) process(ctx context.Context, step *sandbox.Step, op graph.Exec, base solve.Result) (err error) {
	if step.Account, err = w.account(ctx, op, base); err != nil {
		return err
	}
	// The primary group is among the supplementary ones, as containerd has it.
	step.Account.Groups = append([]int{step.Account.GID}, step.Account.Groups...)
	step.Env, step.Cwd, err = environment(op, base, step.Account)
	step.Env = withProxies(step.Env, op.Proxy)
	if err == nil && w.o.Authorities != nil {
		err = w.trust(ctx, step, base)
	}
	return err
}

// account is the user of a step.
func (w *Worker) account(ctx context.Context, op graph.Exec, base solve.Result) (layer.Account, error) {
	if op.User == "" {
		return layer.Account{Home: "/root", Name: "root"}, nil
	}
	view, err := w.View(ctx, base.Layers)
	if err != nil {
		return layer.Account{}, err
	}
	a, err := view.LookupUser(op.User)
	return a, errors.Join(err, view.Close())
}

// Environment gives the variables, without the caller's proxies, and the directory that a step in base has, for whoever
// else runs it.
func (w *Worker) Environment(ctx context.Context, op graph.Exec, base solve.Result) (env []string, cwd string, err error) {
	a, err := w.account(ctx, op, base)
	if err != nil {
		return nil, "", err
	}
	return environment(op, base, a)
}

// environment is what a step inherits of its image, and its own.
func environment(op graph.Exec, base solve.Result, account layer.Account) (env []string, cwd string, err error) {
	var cfg ocispec.Image
	if base.Config != nil {
		if err := json.Unmarshal(base.Config, &cfg); err != nil {
			return nil, "", fmt.Errorf("reading the base image's config: %w", err)
		}
	}
	env = withDefault(mergeEnv(cfg.Config.Env, op.Env), "PATH", defaultPath)
	env = withDefault(env, "HOME", cmp.Or(account.Home, "/"))
	return env, cmp.Or(op.Cwd, cfg.Config.WorkingDir, "/"), nil
}

// defaultPath is what BuildKit gives a process of an image that sets no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// withProxies adds the caller's proxies, as variables of upper and of lower case, where env does not set them.
func withProxies(env []string, p *graph.Proxy) []string {
	if p == nil {
		return env
	}
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HTTP}, {"HTTPS_PROXY", p.HTTPS}, {"FTP_PROXY", p.FTP}, {"NO_PROXY", p.No}, {"ALL_PROXY", p.All},
	} {
		if v.value != "" {
			env = withDefault(env, v.name, v.value)
			env = withDefault(env, strings.ToLower(v.name), v.value)
		}
	}
	return env
}

// withDefault adds a variable that env does not have.
func withDefault(env []string, name, value string) []string {
	if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }) {
		return env
	}
	return append(env, name+"="+value)
}

// mergeEnv lays added over base: a variable that base has keeps its place.
func mergeEnv(base, added []string) []string {
	out := slices.Clone(base)
	for _, kv := range added {
		name, _, _ := strings.Cut(kv, "=")
		i := slices.IndexFunc(out, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		if i >= 0 {
			out[i] = kv
			continue
		}
		out = append(out, kv)
	}
	return out
}

// keep makes the upper directory of a finished step the snapshot of its layer, so that the next step need not unpack it.
func (s *snapshots) keep(dir string, r solve.Result) {
	if _, err := os.Stat(filepath.Join(dir, "fs")); err != nil {
		return // it goes with the scratch directory; the layer is unpacked when it is needed
	}
	top := len(r.Layers) - 1
	_ = s.publish(dir, chainIDs(r.Layers)[top], r.Layers[top].Size) // likewise
}

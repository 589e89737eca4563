package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/lock"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// pins are the lock file of a build: read by builds, written anew by Lock.
type pins struct {
	dir     string     // where the file is; "" is nowhere
	old     *lock.File // what is locked
	locked  bool       // what is not locked is an error
	renew   bool       // names mean what they mean now, and are recorded
	mu      sync.Mutex // guards seen
	seen    *lock.File
	failure error // reading the file failed: said when something is opened
}

var _ local.Pins = (*pins)(nil)

// newPins reads the lock file beside what is built.
func newPins(req Request) *pins {
	p := &pins{locked: req.Locked, renew: req.renew, old: &lock.File{}, seen: &lock.File{}}
	if p.dir = lockDir(req); p.dir != "" {
		if f, err := lock.Read(p.dir); err != nil {
			p.failure = err
		} else {
			p.old = f
		}
	}
	return p
}

// lockDir is the directory of the spec or the Dockerfile; "" when it is on no disk of ours.
func lockDir(req Request) string {
	switch d := req.Dockerfile; {
	case req.LLB != nil:
		return ""
	case d != nil && (d.Stdin || d.Archive != "" || !d.Local && IsRemoteContext(req.ContextDir)):
		return ""
	case req.File == "":
		return req.ContextDir
	}
	return filepath.Dir(req.File)
}

// key is a reference as the file has it: layouts and archives by their path from there.
func (p *pins) key(text string) string {
	r, err := ref.Parse(text)
	if err != nil || r.Path == "" || p.dir == "" {
		return text
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return text
	}
	path, err := filepath.Abs(r.Path)
	if err != nil {
		return text
	}
	if rel, err := filepath.Rel(dir, path); err == nil && !strings.HasPrefix(rel, "..") {
		r.Path = filepath.ToSlash(rel)
	}
	return r.String()
}

// Pin implements local.Pins.
func (p *pins) Pin(text string) (digest.Digest, error) {
	switch {
	case p.failure != nil:
		return "", p.failure
	case p.renew:
		return "", nil
	}
	img, ok := p.old.Images[p.key(text)]
	if !ok && p.locked {
		return "", fmt.Errorf("%w: %s is not in %s", lock.ErrNotLocked, text, filepath.Join(p.dir, lock.Name))
	}
	return img.Digest, nil
}

// Resolved implements local.Pins.
func (p *pins) Resolved(text string, of platform.Platform, root, manifest digest.Digest) error {
	key := p.key(text)
	if !p.renew {
		return p.old.Check(key, of.String(), manifest)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Set(key, root, of.String(), manifest)
	return nil
}

// LockResult is a lock file that was made.
type LockResult struct {
	Path    string   // where it belongs
	Data    []byte   // its content
	Changes []string // "docker.io/library/busybox:latest sha256:... -> sha256:...", sorted
}

// Lock finds out what the names of all images of a build mean now, for all its platforms, and builds nothing.
// It keeps entries of the lock file that this build does not use.
func Lock(ctx context.Context, st *store.Store, req Request, o Options) (_ LockResult, err error) {
	if req.LLB != nil || lockDir(req) == "" {
		return LockResult{}, fmt.Errorf("%w: a lock file belongs beside a spec or Dockerfile on this machine", ErrInput)
	}
	o.Events = event.Serial(o.Events)
	o.Registry.Events = o.Events
	req.renew = true
	e, err := newEngine(ctx, st, registry.New(o.Registry), req, o)
	if err != nil {
		return LockResult{}, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if e.pins.failure != nil {
		return LockResult{}, e.pins.failure
	}
	b, err := e.load(ctx)
	if err != nil {
		return LockResult{}, err
	}
	if err := e.resolveAll(ctx, b); err != nil {
		return LockResult{}, err
	}
	out := LockResult{Path: filepath.Join(e.pins.dir, lock.Name)}
	merged, changes := lock.Merge(e.pins.old, e.pins.seen)
	out.Changes = changes
	out.Data, err = merged.Bytes()
	return out, err
}

// resolveAll resolves every image of the graph.
func (e *engine) resolveAll(ctx context.Context, b *graph.Build) error {
	seen := map[*graph.Vertex]bool{}
	var visit func(v *graph.Vertex) error
	visit = func(v *graph.Vertex) error {
		if v == nil || seen[v] {
			return nil
		}
		seen[v] = true
		if op, ok := v.Op.(graph.Image); ok && !strings.Contains(op.Ref, "@") {
			if _, _, err := e.worker.Resolve(ctx, op.Ref, v.Platform); err != nil {
				return fmt.Errorf("%s: %w", v.Meta.Source, err)
			}
		}
		for _, in := range v.Inputs {
			if err := visit(in); err != nil {
				return err
			}
		}
		return nil
	}
	for _, t := range b.Targets {
		if err := visit(t.Root); err != nil {
			return err
		}
	}
	return nil
}

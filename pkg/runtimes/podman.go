package runtimes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// podman is podman's command. Several platforms become a manifest list in its storage, of which it runs this machine's.
type podman struct {
	path string
	env  Env
}

var _ Runtime = (*podman)(nil)

func openPodman(ctx context.Context, _ Target, env Env) (Runtime, error) {
	path, err := env.look("podman")
	if err != nil {
		r, serr := openPodmanSocket(ctx, env)
		if serr != nil {
			return nil, fmt.Errorf("%w, and %w", err, serr)
		}
		return r, nil
	}
	p := &podman{path: path, env: env}
	if _, err := run(p.command(ctx, "version", "--format", "{{.Client.Version}}")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return p, nil
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, p.path, args...)
}

// String implements fmt.Stringer.
func (p *podman) String() string { return "podman" }

// Holds implements Runtime.
func (p *podman) Holds(ps []platform.Platform) ([]int, string, error) { return every(ps), "", nil }

// Expands implements Runtime.
func (p *podman) Expands() bool { return false }

// Load implements Runtime.
func (p *podman) Load(ctx context.Context, b Bundle) error {
	load := func(ctx context.Context, image int, named bool) error {
		_, err := feed(ctx, p.command(ctx, "load", "-q"), func(ctx context.Context, w io.Writer) error { return b.OCI(ctx, w, image, named) })
		return err
	}
	return loadList(ctx, b, load, lister{
		create: func(ctx context.Context, name string, ids []string) error {
			if _, err := run(p.command(ctx, "manifest", "create", name)); err != nil {
				return err
			}
			for _, id := range ids {
				if _, err := run(p.command(ctx, "manifest", "add", name, "containers-storage:"+id)); err != nil {
					return err
				}
			}
			return nil
		},
		tag: func(ctx context.Context, name, as string) error {
			_, err := run(p.command(ctx, "tag", name, as))
			return err
		},
		remove: func(ctx context.Context, name string) error {
			_, err := run(p.command(ctx, "manifest", "rm", name))
			return err
		},
	})
}

// lister is what podman does with manifest lists.
type lister struct {
	create func(ctx context.Context, name string, ids []string) error
	tag    func(ctx context.Context, name, as string) error
	remove func(ctx context.Context, name string) error // the name; the list too, when that was its last one
}

// loadList loads a single image under its names. Several are loaded without names, and then become a manifest list that gets
// the names: podman's load takes one image of an archive.
func loadList(ctx context.Context, b Bundle, load func(ctx context.Context, image int, named bool) error, l lister) error {
	if len(b.Images) == 1 {
		return load(ctx, 0, true)
	}
	if len(b.Names) == 0 {
		return fmt.Errorf("%w: several platforms need a name in podman: give one with -t", ErrInvalid)
	}
	ids := make([]string, len(b.Images))
	for i, img := range b.Images {
		if err := load(ctx, i, false); err != nil {
			return err
		}
		_, ids[i], _ = strings.Cut(img.ID, ":")
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	name := "localhost/manifestctl-load:" + hex.EncodeToString(random[:]) // until everything is in it
	if err := l.create(ctx, name, ids); err != nil {
		_ = l.remove(context.WithoutCancel(ctx), name) // it may not have come to be
		return err
	}
	for _, n := range b.Names {
		if err := l.tag(ctx, name, n); err != nil {
			_ = l.remove(context.WithoutCancel(ctx), name) // the error says enough
			return err
		}
	}
	// Not by untag or rmi: those take a list for the image in it that is this machine's (podman 4.3).
	return l.remove(ctx, name)
}

package runtimes

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// containerd is containerd behind ctr or nerdctl. It holds every platform, and unpacks this machine's.
type containerd struct {
	path   string // of the program
	name   string // ctr or nerdctl
	space  string // "": as the program finds it
	before []string
	args   []string
}

var _ Runtime = (*containerd)(nil)

func openContainerd(ctx context.Context, t Target, env Env) (Runtime, error) {
	path, err := env.look("ctr")
	if err != nil {
		r, nerr := openNerdctl(ctx, t, env)
		if nerr != nil {
			return nil, fmt.Errorf("%w, and %w", err, nerr)
		}
		return r, nil
	}
	c := &containerd{path: path, name: "ctr", space: t.Space, args: []string{"images", "import", "--all-platforms", "-"}}
	if env.Getenv("CONTAINERD_ADDRESS") == "" && env.Root != "" {
		c.before = []string{"-a", filepath.Join(env.Root, "/run/containerd/containerd.sock")}
	}
	if err := c.answers(ctx, "version"); err != nil {
		return nil, err
	}
	return c, nil
}

func openNerdctl(ctx context.Context, t Target, env Env) (Runtime, error) {
	path, err := env.look("nerdctl")
	if err != nil {
		return nil, err
	}
	c := &containerd{path: path, name: "nerdctl", space: t.Space, args: []string{"load", "--all-platforms"}}
	if err := c.answers(ctx, "info"); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *containerd) answers(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := run(c.command(ctx, args...)); err != nil {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	return nil
}

func (c *containerd) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{}, c.before...)
	if c.space != "" {
		all = append(all, "-n", c.space)
	}
	return exec.CommandContext(ctx, c.path, append(all, args...)...)
}

// String implements fmt.Stringer.
func (c *containerd) String() string {
	if c.space == "" {
		return "containerd by " + c.name
	}
	return "containerd by " + c.name + " in namespace " + c.space
}

// Holds implements Runtime.
func (c *containerd) Holds(ps []platform.Platform) ([]int, string, error) { return every(ps), "", nil }

// Expands implements Runtime.
func (c *containerd) Expands() bool { return false }

// Load implements Runtime.
func (c *containerd) Load(ctx context.Context, b Bundle) error {
	if len(b.Names) == 0 {
		return fmt.Errorf("%w: images of containerd have names: give one with -t", ErrInvalid)
	}
	_, err := feed(ctx, c.command(ctx, c.args...), func(ctx context.Context, w io.Writer) error { return b.OCI(ctx, w, All, true) })
	return err
}

// crio is the storage of CRI-O, which is podman's and skopeo's too.
type crio struct{ podman, skopeo string }

var _ Runtime = (*crio)(nil)

func openCRIO(_ context.Context, t Target, env Env) (Runtime, error) {
	if t.Kind == "" { // nobody asked for it: it must be running
		if info, err := os.Stat(filepath.Join(env.Root, "/var/run/crio/crio.sock")); err != nil || info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%w: there is no socket /var/run/crio/crio.sock", ErrNone)
		}
	}
	podman, err := env.look("podman")
	if err == nil {
		return &crio{podman: podman}, nil
	}
	skopeo, serr := env.look("skopeo")
	if serr != nil {
		return nil, fmt.Errorf("%w, and %w: one of them writes to its storage", err, serr)
	}
	return &crio{skopeo: skopeo}, nil
}

// String implements fmt.Stringer.
func (c *crio) String() string {
	if c.podman != "" {
		return "containers-storage by podman"
	}
	return "containers-storage by skopeo"
}

// Holds implements Runtime.
func (c *crio) Holds(ps []platform.Platform) ([]int, string, error) {
	return one(emulate.Machine(), ps, "CRI-O knows images of one platform")
}

// Expands implements Runtime.
func (c *crio) Expands() bool { return false }

// Load implements Runtime.
func (c *crio) Load(ctx context.Context, b Bundle) (err error) {
	write := func(ctx context.Context, w io.Writer) error { return b.OCI(ctx, w, 0, true) }
	if c.podman != "" {
		_, err := feed(ctx, exec.CommandContext(ctx, c.podman, "load", "-q"), write)
		return err
	}
	if len(b.Names) == 0 {
		return fmt.Errorf("%w: an image needs a name in this storage: give one with -t", ErrInvalid)
	}
	f, err := os.CreateTemp("", "manifestctl-load-*.tar") // skopeo reads an archive more than once
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // what is left of it is of no use
	err = b.OCI(ctx, f, 0, false)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	for _, n := range b.Names {
		if _, err := run(exec.CommandContext(ctx, c.skopeo, "--insecure-policy", "copy", "-q", "oci-archive:"+f.Name(), "containers-storage:"+n)); err != nil {
			return err
		}
	}
	return nil
}

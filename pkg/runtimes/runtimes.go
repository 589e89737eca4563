// Package runtimes finds the container runtimes of this machine and loads images into them: docker, podman, containerd,
// nerdctl and CRI-O.
//
// It talks to sockets and to the runtimes' own commands; it does not decide what an archive holds, [Bundle] writes it.
//
// # Invariants
//
//   - A runtime is found, and has answered, before anything is built for it.
//   - It gets every platform that it can hold; what it cannot hold is said, with the reason.
//   - Names are set last, when everything that they name is there.
package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// The kinds of errors.
var (
	ErrInvalid = errors.New("invalid runtime")
	// ErrNone says that a runtime is not here, or does not answer.
	ErrNone = errors.New("no container runtime")
	// ErrPlatform says that the runtime can hold none of the platforms.
	ErrPlatform = errors.New("not for this runtime")
)

// Target names a runtime. The zero value is whichever is there.
type Target struct {
	Kind  string // a name in [Kinds], or ""
	Space string // containerd's namespace; "" is $CONTAINERD_NAMESPACE, else "default"
}

// Kinds are the runtimes, in the order in which they are looked for.
var Kinds = []string{"docker", "podman", "containerd", "nerdctl", "cri-o"}

var spaces = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`) }) // containerd, identifiers

// Parse reads a target: "", or a name in [Kinds], for containerd and nerdctl with :NAMESPACE.
func Parse(s string) (Target, error) {
	name, space, spaced := strings.Cut(s, ":")
	if name == "crio" || name == "containers-storage" {
		name = "cri-o"
	}
	switch {
	case s == "":
		return Target{}, nil
	case !slices.Contains(Kinds, name):
		return Target{}, fmt.Errorf("%w %.100q: known are %s", ErrInvalid, s, strings.Join(Kinds, ", "))
	case spaced && name != "containerd" && name != "nerdctl":
		return Target{}, fmt.Errorf("%w %.100q: only containerd has namespaces", ErrInvalid, s)
	case spaced && (len(space) > 76 || !spaces().MatchString(space)):
		return Target{}, fmt.Errorf("%w %.100q: %q is no namespace of containerd", ErrInvalid, s, space)
	}
	return Target{Kind: name, Space: space}, nil
}

// Env is what runtimes are found with.
type Env struct {
	Getenv func(string) string
	// Root is put before the paths of system-wide sockets; tests have their own. "" is /.
	Root string
}

// look finds a program in $PATH.
func (e Env) look(name string) (string, error) {
	if runtime.GOOS == "windows" { // where names have endings
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNone, err)
		}
		return path, nil
	}
	for _, dir := range filepath.SplitList(e.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); filepath.IsAbs(path) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: there is no program %s", ErrNone, name)
}

// Runtime is a container runtime that has answered.
type Runtime interface {
	fmt.Stringer
	// Holds says which of some platforms the runtime takes, by position, and, when that is not all, why. None is an error of
	// kind ErrPlatform.
	Holds(ps []platform.Platform) (keep []int, why string, err error)
	// Expands reports whether the runtime unpacks what it gets and keeps no compressed bytes.
	Expands() bool
	// Load brings images into the runtime and gives them the names.
	Load(ctx context.Context, b Bundle) error
}

// Bundle is what is loaded.
type Bundle struct {
	Names  []string // with host and tag: docker.io/library/app:latest
	Images []Image  // those that the runtime takes, in the order of Holds
	// OCI writes an OCI archive: of all images, as the index that the runtime is to keep, or of one of Images; with Names or
	// without any.
	OCI func(ctx context.Context, w io.Writer, image int, named bool) error
	// Docker writes a docker archive of one of Images, with Names.
	Docker func(ctx context.Context, w io.Writer, image int) error
	// Note tells people.
	Note func(text string)
}

// All, for Bundle.OCI, is the whole index.
const All = -1

// Image is one that is loaded.
type Image struct {
	Platform platform.Platform
	ID       string // digest of its config
}

// Open finds a runtime and asks it how it is.
func Open(ctx context.Context, t Target, env Env) (Runtime, error) {
	open := map[string]func(context.Context, Target, Env) (Runtime, error){
		"docker": openDocker, "podman": openPodman, "containerd": openContainerd, "nerdctl": openNerdctl, "cri-o": openCRIO,
	}
	if t.Kind != "" {
		r, err := open[t.Kind](ctx, t, env)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Kind, err)
		}
		return r, nil
	}
	var errs []error
	for _, kind := range Kinds {
		r, err := open[kind](ctx, t, env)
		if err == nil {
			return r, nil
		}
		if context.Cause(ctx) != nil {
			return nil, context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("%s: %w", kind, err))
	}
	return nil, &noneError{errs}
}

// noneError says where a runtime was looked for.
type noneError struct{ errs []error }

func (e *noneError) Error() string {
	var b strings.Builder
	b.WriteString("no container runtime answers here")
	for _, err := range e.errs {
		fmt.Fprintf(&b, "\n  %v", err)
	}
	return b.String()
}
func (e *noneError) Is(target error) bool { return target == ErrNone }

// every is the answer of a runtime that holds any platforms.
func every(ps []platform.Platform) []int {
	out := make([]int, len(ps))
	for i := range ps {
		out[i] = i
	}
	return out
}

// one chooses what a runtime that holds a single platform takes: the machine's, or the only one.
func one(machine platform.Platform, ps []platform.Platform, why string) ([]int, string, error) {
	if len(ps) == 1 {
		return []int{0}, "", nil
	}
	if i, ok := platform.Select(machine, ps); ok {
		return []int{i}, why, nil
	}
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.String()
	}
	return nil, "", fmt.Errorf("%w: %s, and of %s none is for its %s: choose one with --platform", ErrPlatform, why, strings.Join(names, ", "), machine)
}

// feed runs a command with an archive on its standard input, and returns what it printed.
func feed(ctx context.Context, cmd *exec.Cmd, write func(ctx context.Context, w io.Writer) error) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	werr := write(ctx, stdin)
	if werr != nil { // half an archive is not to be taken for a whole one
		_ = cmd.Process.Kill()
	}
	cerr := stdin.Close()
	err = cmd.Wait()
	said := strings.TrimSpace(errs.String())
	switch {
	case werr != nil && !brokenPipe(werr):
		return "", werr
	case err != nil:
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "), err, last(said, 1000))
	case werr != nil:
		return "", werr
	}
	if cerr != nil && !errors.Is(cerr, os.ErrClosed) && !brokenPipe(cerr) {
		return "", cerr
	}
	return out.String(), nil
}

// run runs a command that needs no input.
func run(cmd *exec.Cmd) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "), err, last(strings.TrimSpace(errs.String()), 1000))
	}
	return strings.TrimSpace(out.String()), nil
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

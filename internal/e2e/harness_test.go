package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// shared is a directory that every user can read, with what all tests use.
var shared struct {
	dir string
	bin string
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		syscall.Umask(0o022)
		dir, err := os.MkdirTemp("", "manifestctl-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.dir, shared.bin = dir, filepath.Join(dir, "manifestctl")
		c := exec.Command("go", "build", "-trimpath", "-o", shared.bin, "../../cmd/manifestctl")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building manifestctl: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// who is a user that runs the program.
type who struct {
	name string // "root", "ranges", "single"; "self" for an ordinary user who runs the tests
	cred *syscall.Credential
	home string
}

// everybody returns the users that this process can become: root makes two ordinary ones.
func everybody(t *testing.T) []who {
	t.Helper()
	if os.Getuid() != 0 {
		return []who{{name: "self", home: t.TempDir()}}
	}
	return []who{root(t), ordinary(t, "ranges"), ordinary(t, "single")}
}

func root(t *testing.T) who {
	return who{name: "root", home: t.TempDir()}
}

var makeUsers sync.Mutex

// ordinary returns the user manifestctl-KIND, made when it is missing: "ranges" has subuid ranges, "single" has none.
func ordinary(t *testing.T, kind string) who {
	t.Helper()
	if os.Getuid() != 0 {
		return who{name: "self", home: t.TempDir()}
	}
	makeUsers.Lock()
	defer makeUsers.Unlock()
	name := "manifestctl-" + kind
	if _, err := user.Lookup(name); err != nil {
		must(t, exec.Command("useradd", "--create-home", "--shell", "/bin/sh", name))
	}
	if kind == "single" {
		must(t, exec.Command("sed", "-i", "/^"+name+":/d", "/etc/subuid", "/etc/subgid"))
	}
	u, err := user.Lookup(name)
	require.NoError(t, err)
	uid, err := strconv.Atoi(u.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(u.Gid)
	require.NoError(t, err)
	home, err := os.MkdirTemp(shared.dir, kind+"-")
	require.NoError(t, err)
	require.NoError(t, os.Chown(home, uid, gid))
	w := who{name: kind, cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, home: home}
	t.Cleanup(func() { _ = os.RemoveAll(home) }) // root may remove what subordinate ids own
	return w
}

// dir makes a directory of w's.
func (w who) dir(t *testing.T, name string) string {
	t.Helper()
	d := filepath.Join(w.home, name)
	require.NoError(t, os.MkdirAll(d, 0o755))
	w.own(t, d)
	return d
}

// own gives a tree to w.
func (w who) own(t *testing.T, path string) {
	t.Helper()
	if w.cred == nil {
		return
	}
	require.NoError(t, filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, int(w.cred.Uid), int(w.cred.Gid)))
	}))
}

// copyTree copies files of the checkout to a directory of w's.
func (w who) copyTree(t *testing.T, from, name string) string {
	t.Helper()
	to := filepath.Join(w.home, name)
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	w.own(t, to)
	return to
}

// command runs the program as w, with nothing of the tests' environment.
func (w who) command(env []string, args ...string) *exec.Cmd {
	return w.other(env, shared.bin, append([]string{"--root", filepath.Join(w.home, "store")}, args...)...)
}

// other runs another program as w.
func (w who) other(env []string, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Env = append([]string{
		"HOME=" + w.home, "TMPDIR=" + w.home, "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "XDG_RUNTIME_DIR=" + w.home,
	}, env...)
	c.Dir = w.home
	if w.cred != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: w.cred}
	}
	return c
}

// result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

func do(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		require.NoError(t, err, strings.Join(c.Args, " "))
	}
	return r
}

// ok runs a command that must end well and returns what it printed.
func ok(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	r := do(t, c)
	require.Zero(t, r.code, "%s\n%s%s", strings.Join(c.Args, " "), r.stdout, r.stderr)
	return r
}

func must(t *testing.T, c *exec.Cmd) {
	t.Helper()
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s\n%s", strings.Join(c.Args, " "), out)
}

// tool is a peer's program. make test installs them.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "this test compares with %s: run make deps", name)
	return path
}

// debianRegistry starts docker-registry and returns its address.
func debianRegistry(t *testing.T) string {
	t.Helper()
	return testregistry.Debian(t)
}

// ourRegistry starts manifestctl serve as w and returns its address.
func ourRegistry(t *testing.T, w who) string {
	t.Helper()
	return startServe(t, w, filepath.Join(w.home, "registry")).addr
}

var digestLine = regexp.MustCompile(`(?m)^sha256:[0-9a-f]{64}$`)

// digestOf is the digest that a build printed.
func digestOf(t *testing.T, r result) string {
	t.Helper()
	d := digestLine.FindString(r.stdout)
	require.NotEmpty(t, d, "no digest on stdout: %q\n%s", r.stdout, r.stderr)
	return d
}

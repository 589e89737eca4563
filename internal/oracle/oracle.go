// Package oracle runs a real BuildKit to compare with: buildkitd and buildctl of the version that
// tools/buildkit/go.mod pins, which is that of the Dockerfile frontend in the main module.
//
// It is for tests and the bench. The programs are built once and kept in the user's cache directory by
// version; the daemon listens on a loopback port, keeps everything in a directory of the caller and ends
// with it. It needs root and runc.
package oracle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrUnavailable is the kind of "this machine cannot run BuildKit".
var ErrUnavailable = errors.New("BuildKit cannot run here")

// Available says why no daemon can run here; nil when one can.
func Available() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrUnavailable)
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return fmt.Errorf("%w: it needs runc (Debian: runc)", ErrUnavailable)
	}
	return nil
}

const module = "github.com/moby/buildkit"

// Binaries returns the directory with buildkitd and buildctl, building them when they are not there (minutes).
// root is the main module's directory.
func Binaries(ctx context.Context, root string) (string, error) {
	tools := filepath.Join(root, "tools", "buildkit")
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", module)
	list.Dir = tools
	version, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("asking for the version of BuildKit: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for a cache directory: %w", err)
	}
	dir := filepath.Join(cache, "manifestctl", "buildkit-"+strings.TrimSpace(string(version)))
	if _, err := os.Stat(filepath.Join(dir, "buildkitd")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp+"/", module+"/cmd/buildkitd", module+"/cmd/buildctl")
	build.Dir = tools
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building BuildKit: %w\n%s", err, out)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// Daemon is a running buildkitd.
type Daemon struct {
	Addr string // tcp://127.0.0.1:PORT
	tls  *TLS
	bin  string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

// TLS is the files of a daemon that is encrypted, and of clients that it lets in.
type TLS struct {
	CA, Cert, Key         string // the daemon's; CA signed clients' certificates, too
	ClientCert, ClientKey string // of buildctl
}

// Start starts buildkitd of the directory bin with its state in dir, on a free port of the loopback.
func Start(ctx context.Context, bin, dir string) (*Daemon, error) {
	return StartWith(ctx, bin, dir, Options{})
}

// Options of a daemon. The zero value listens on a free port of the loopback, without TLS.
type Options struct {
	Addr string   // tcp:// or unix://; "" is a free port
	TLS  *TLS     // mutual TLS
	Env  []string // added to its environment
	Args []string // added to its command line
}

// ports is how many ports are tried: another process may take one between our asking for it and the daemon's.
const ports = 5

// StartWith is Start with options.
func StartWith(ctx context.Context, bin, dir string, o Options) (*Daemon, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	if o.Addr != "" {
		return start(ctx, bin, dir, o)
	}
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		o.Addr = "tcp://" + l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
		d, err := start(ctx, bin, dir, o)
		if err == nil || try == ports || !strings.Contains(err.Error(), "address already in use") {
			return d, err
		}
	}
}

func start(ctx context.Context, bin, dir string, o Options) (*Daemon, error) {
	d := &Daemon{Addr: o.Addr, tls: o.TLS, bin: bin, log: &bytes.Buffer{}, done: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(bin, "buildkitd"),
		"--root", dir, "--addr", o.Addr, "--oci-worker-net", "host", "--oci-worker-snapshotter", "overlayfs",
		"--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure",
		"--otel-socket-path", filepath.Join(dir, "otel.sock"))
	if o.TLS != nil {
		d.cmd.Args = append(d.cmd.Args, "--tlscacert", o.TLS.CA, "--tlscert", o.TLS.Cert, "--tlskey", o.TLS.Key)
	}
	d.cmd.Args = append(d.cmd.Args, o.Args...)
	d.cmd.Env = append(os.Environ(), o.Env...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = endsWithUs()
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting buildkitd: %w", err)
	}
	go func() { _ = d.cmd.Wait(); close(d.done) }()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		c := d.Command(ctx, "debug", "workers")
		if c.Run() == nil {
			return d, nil
		}
		select {
		case <-d.done:
			return nil, fmt.Errorf("%w: buildkitd ended:\n%s", ErrUnavailable, d.log)
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), d.Close())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%w: buildkitd does not answer", ErrUnavailable), d.Close())
		}
	}
}

// Command is buildctl for this daemon.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	global := []string{"--addr", d.Addr}
	if d.tls != nil {
		global = append(global, "--tlscacert", d.tls.CA, "--tlscert", d.tls.ClientCert, "--tlskey", d.tls.ClientKey)
	}
	return exec.CommandContext(ctx, filepath.Join(d.bin, "buildctl"), append(global, args...)...)
}

// Kill ends the daemon as a crash would, and what it left mounted below its directory.
func (d *Daemon) Kill() error {
	err := d.cmd.Process.Kill()
	<-d.done
	return err
}

// Close ends the daemon.
func (d *Daemon) Close() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	return nil
}

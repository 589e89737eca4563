package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// serve starts manifestctl's own registry for both sides.
func (b *bench) serve() (stop func(), err error) {
	log, err := os.Create(filepath.Join(b.dir, "serve.log"))
	if err != nil {
		return nil, err
	}
	c := exec.Command(b.bin, "serve", "--listen", "127.0.0.1:0", filepath.Join(b.dir, "registry"))
	c.Stderr = log
	if err := c.Start(); err != nil {
		return nil, err
	}
	stop = func() { _ = c.Process.Signal(os.Interrupt); _ = c.Wait() }
	for range 100 {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			return stop, err
		}
		if i := bytes.Index(text, []byte("127.0.0.1:")); i >= 0 {
			b.registry = string(bytes.FieldsFunc(text[i:], func(r rune) bool { return !strings.ContainsRune("0123456789.:", r) })[0])
			return stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return stop, errors.New("the registry did not say where it listens")
}

// serveBase starts the registry with busybox in it.
func (b *bench) serveBase() (stop func(), err error) {
	stop, err = b.serve()
	if err != nil {
		return nil, err
	}
	if err := b.base(); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// buildkit starts n daemons of the frontend's version.
func (b *bench) buildkit(ctx context.Context, n int) (version string, daemons []*oracle.Daemon, stop func(), err error) {
	stop = func() {
		for _, d := range daemons {
			_ = d.Close() // its directory goes too
		}
	}
	root, err := os.Getwd()
	if err != nil {
		return "", nil, nil, err
	}
	programs, err := oracle.Binaries(ctx, root)
	if err != nil {
		return "", nil, nil, err
	}
	for i := range n {
		d, err := oracle.Start(ctx, programs, filepath.Join(b.dir, fmt.Sprintf("buildkit%d", i)))
		if err != nil {
			stop()
			return "", nil, nil, err
		}
		daemons = append(daemons, d)
	}
	return line(filepath.Join(programs, "buildkitd"), "--version"), daemons, stop, nil
}

// base pushes busybox for both platforms.
func (b *bench) base() error {
	dir := filepath.Join(b.dir, "base")
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		return nil // the registry's directory has it
	} else if err != nil {
		return err
	}
	if err := command(exec.Command("scripts/busybox.sh", dir, "amd64", "arm64")); err != nil {
		return err
	}
	spec := "version: 1\nplatforms: [linux/amd64, linux/arm64]\nfrom: scratch\nsteps:\n" +
		"  - archive: {source: \"${DEB_ARCH}.tar\", path: /}\n  - files:\n"
	for _, applet := range []string{"sh", "true", "uname", "cat", "ls"} {
		spec += fmt.Sprintf("      - {path: /bin/%s, type: symlink, target: busybox}\n", applet)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec), 0o644); err != nil {
		return err
	}
	return command(b.ours("-t", b.registry+"/busybox", "--push", dir))
}

// register makes the host run arm64 programs, for buildah, and returns what undoes it.
func register() (undo func(), err error) {
	const dir = "/proc/sys/fs/binfmt_misc"
	const name = "manifestctl-bench"
	mounted := false
	if _, err := os.Stat(dir + "/register"); err != nil {
		if err := command(exec.Command("mount", "-t", "binfmt_misc", "binfmt_misc", dir)); err != nil {
			return nil, err
		}
		mounted = true
	}
	unmount := func() {
		if mounted {
			_ = command(exec.Command("umount", dir))
		}
	}
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		unmount()
		return nil, err
	}
	magic := `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`
	mask := `\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
	line := fmt.Sprintf(":%s:M::%s:%s:%s:F", name, magic, mask, qemu)
	if err := os.WriteFile(dir+"/register", []byte(line), 0o200); err != nil {
		unmount()
		return nil, fmt.Errorf("registering a handler for buildah: %w", err)
	}
	return func() {
		_ = os.WriteFile(dir+"/"+name, []byte("-1"), 0o200)
		unmount()
	}, nil
}

// unmountBelow undoes the mounts that buildah leaves in its store.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			err = errors.Join(err, command(exec.Command("umount", f[1])))
		}
	}
	return err
}

// ours is a build with the bench's store.
func (b *bench) ours(args ...string) *exec.Cmd {
	return exec.Command(b.bin, append([]string{"--root", filepath.Join(b.dir, "store"), "build", "--progress", "quiet"}, args...)...)
}

// buildah is buildah with a store of its own.
func (b *bench) buildah(args ...string) *exec.Cmd {
	c := exec.Command("buildah", append([]string{"--root", filepath.Join(b.dir, "buildah"), "--runroot", filepath.Join(b.dir, "buildah-run")}, args...)...)
	c.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot")
	return c
}

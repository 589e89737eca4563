package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ownersDockerfile installs packages whose maintainer scripts make users, chown, and set capabilities. They are
// downloaded in a step of its own, which is cached: what is measured is dpkg and its scripts.
const ownersDockerfile = `FROM %s/debian:bookworm
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --download-only --no-install-recommends -o APT::Keep-Downloaded-Packages=true %s
ARG ROUND
RUN --network=none echo $ROUND && apt-get install -y --no-install-recommends %[2]s
`

// owners is what the supervisor costs: the same packages installed by a user with subuid ranges, to whom the kernel gives
// the owners, and by one with a single id, for whom each chown and stat is answered by a supervisor.
func (b *bench) owners() error {
	stop, err := b.serve()
	if err != nil {
		return err
	}
	defer stop()
	if err := b.debianBase(); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o711); err != nil {
		return err
	}
	kinds := []string{"ranges", "single"}
	users := map[string]*ordinary{}
	for _, kind := range kinds {
		u, err := newOrdinary(kind)
		if err != nil {
			return err
		}
		defer os.RemoveAll(u.home) //nolint:errcheck // root may
		users[kind] = u
	}
	var w bytes.Buffer
	fmt.Fprint(&w, "\n## Owners\n\n`apt-get install` of downloaded packages on Debian bookworm, amd64, and the layer's commit: a user with a single id, whose steps are supervised, against one with subuid ranges. Ratios are medians of those of each pair.\n\n")
	fmt.Fprintln(&w, "| packages | single id | ranges | ratio | target |\n|---|---|---|---|---|")
	for _, set := range []struct{ packages, target string }{
		{"iputils-ping openssh-server nginx-light dbus sudo man-db postfix redis-server", "≤ 1.3"},
		{"postgresql", ""},
	} {
		file := fmt.Appendf(nil, ownersDockerfile, b.registry, set.packages)
		times, ratios := map[string][]time.Duration{}, []float64(nil)
		for i := range min(b.runs, 5) + 1 {
			took := map[string]time.Duration{}
			for _, kind := range kinds {
				u := users[kind]
				dir := filepath.Join(u.home, "context")
				if err := u.write(filepath.Join(dir, "Dockerfile"), file); err != nil {
					return err
				}
				start := time.Now()
				if err := command(u.command(b.bin, "--root", filepath.Join(u.home, "store"), "build", "--progress", "plain", "--build-arg", fmt.Sprint("ROUND=", i), dir)); err != nil {
					return err
				}
				took[kind] = time.Since(start)
			}
			if i > 0 { // the first one downloads
				for _, kind := range kinds {
					times[kind] = append(times[kind], took[kind])
				}
				ratios = append(ratios, float64(took["single"])/float64(took["ranges"]))
			}
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %.2f | %s |\n", set.packages, ms(median(times["single"])), ms(median(times["ranges"])), median(ratios), set.target)
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// ordinary is a user who is not root, with a directory of its own.
type ordinary struct {
	cred *syscall.Credential
	home string
}

// newOrdinary makes the user manifestctl-KIND when it is missing: "ranges" has subuid ranges, "single" has none.
func newOrdinary(kind string) (*ordinary, error) {
	name := "manifestctl-" + kind
	if _, err := user.Lookup(name); err != nil {
		if err := command(exec.Command("useradd", "--create-home", "--shell", "/bin/sh", name)); err != nil {
			return nil, err
		}
	}
	if kind == "single" {
		if err := command(exec.Command("sed", "-i", "/^"+name+":/d", "/etc/subuid", "/etc/subgid")); err != nil {
			return nil, err
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "manifestctl-bench-"+kind+"-")
	if err != nil {
		return nil, err
	}
	return &ordinary{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, home}, os.Chown(home, int(uid), int(gid))
}

// write puts a file where the user can read it.
func (u *ordinary) write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// command runs as the user.
func (u *ordinary) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = u.home
	c.Env = []string{"HOME=" + u.home, "PATH=" + os.Getenv("PATH")}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: u.cred}
	return c
}

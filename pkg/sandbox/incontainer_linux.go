package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inContainer says what tells that the file system at root is a container's: what engines mount in each of theirs, or the files and
// cgroups that they leave. Those alone are not enough: a machine whose disk was made of an image has them, too, so the root
// must not be the whole of a disk. "" is nothing.
func inContainer(root string) string {
	mounts, err := mountTable(root)
	if err != nil {
		return ""
	}
	has := func(point string) bool {
		return slices.ContainsFunc(mounts, func(m mountLine) bool { return m.point == point })
	}
	if has("/etc/hosts") && has("/etc/resolv.conf") {
		return "/etc/hosts and /etc/resolv.conf are mount points"
	}
	if !slices.ContainsFunc(mounts, func(m mountLine) bool {
		return m.point == "/" && (m.root != "/" || !strings.HasPrefix(m.source, "/dev/"))
	}) {
		return ""
	}
	for _, name := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			return name
		}
	}
	if b, err := os.ReadFile(filepath.Join(root, "/proc/1/cgroup")); err == nil {
		for _, word := range []string{"docker", "kubepods", "libpod", "crio", "containerd"} {
			if strings.Contains(string(b), word) {
				return "/proc/1/cgroup: " + word
			}
		}
	}
	return ""
}

// mountLine is what is said of a mount: what of its file system is mounted where, and what that is on.
type mountLine struct{ root, point, source string }

// mountPoints are those of this process below its root, without the root.
func mountPoints(root string) ([]string, error) {
	mounts, err := mountTable(root)
	var out []string
	for _, m := range mounts {
		if m.point != "/" && !slices.Contains(out, m.point) {
			out = append(out, m.point)
		}
	}
	return out, err
}

func mountTable(root string) ([]mountLine, error) {
	f, err := os.Open(filepath.Join(root, "/proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMounts(f)
}

// readMounts reads the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)): the fourth field is the root of the mount, the fifth its point,
// and behind a dash come type and source; space, tab, newline and backslash are octal numbers.
func readMounts(r io.Reader) ([]mountLine, error) {
	var out []mountLine
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Split(s.Text(), " ")
		dash := slices.Index(f, "-")
		if dash < 6 || dash+2 >= len(f) {
			return nil, fmt.Errorf("a line of mountinfo: %w", unix.EBADMSG)
		}
		out = append(out, mountLine{unescapeOctal(f[3]), unescapeOctal(f[4]), unescapeOctal(f[dash+2])})
	}
	return out, s.Err()
}

func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// newSwap is the root of this container, or says why it cannot be lent to steps. Nothing is touched.
func newSwap(o Options) (*rootSwap, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: steps in place: uid %d cannot replace what is in /: run as uid 0 (docker: --user 0; kubernetes: runAsUser: 0)", ErrHost, os.Geteuid())
	}
	if inContainer("/") == "" && !o.OverwriteRoot {
		return nil, fmt.Errorf("%w: steps in place: nothing tells that this is a container (its engine would mount /etc/hosts and /etc/resolv.conf), "+
			"and while a step runs its files take the place of all that is in /: if that may be, say so with --overwrite-root-filesystem", ErrHost)
	}
	points, err := mountPoints("/")
	if err != nil {
		return nil, fmt.Errorf("%w: steps in place: %w", ErrHost, err)
	}
	for _, name := range []string{"/proc", "/dev"} {
		if !slices.Contains(points, name) {
			return nil, fmt.Errorf("%w: steps in place: %s is not mounted here", ErrHost, name)
		}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, "/", unix.W_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("%w: steps in place need a root file system that can be written to: %w: %s", ErrHost, err, mendRoot(err))
	}
	w := &rootSwap{root: "/", keep: points}
	for _, name := range o.Keep {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, fmt.Errorf("%w: steps in place: %w", ErrHost, err)
		}
		if !slices.Contains(w.keep, real) {
			w.keep = append(w.keep, real)
		}
	}
	// So that the container can be started again even after a step's tree was left in it.
	if exe, err := os.Readlink("/proc/self/exe"); err == nil && filepath.Dir(exe) == "/" {
		w.keep = append(w.keep, exe)
	}
	return w, nil
}

// mendRoot says what makes a root writable.
func mendRoot(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return "docker: without --read-only; kubernetes: readOnlyRootFilesystem: false"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "/ must belong to uid 0, or add the capability DAC_OVERRIDE"
	}
	return "docker: without --read-only"
}

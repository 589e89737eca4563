package sandbox

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file keeps the names of the /proc that is served: what is there, and the placeholders that stand for it.

// procName is a name below /proc that is served.
type procName struct {
	rel  string // below the real /proc; "" for what is only a directory here
	dir  bool
	link bool
}

// procPath says which name below /proc is meant: "." is itself. Names with ".." are nobody's.
func procPath(name string) (string, bool) {
	switch name {
	case "/dev/stdin":
		return "self/fd/0", true
	case "/dev/stdout":
		return "self/fd/1", true
	case "/dev/stderr":
		return "self/fd/2", true
	}
	if rest, ok := strings.CutPrefix(name, "/dev/fd"); ok && (rest == "" || rest[0] == '/') {
		name = "/proc/self/fd" + rest
	}
	rest, ok := strings.CutPrefix(name, "/proc")
	if !ok || rest != "" && rest[0] != '/' || slices.Contains(strings.Split(rest, "/"), "..") {
		return "", false
	}
	return path.Clean(strings.TrimLeft(rest, "/")), true
}

// find looks a name up in the lists. Directories are made in the tree.
func (p *procServer) find(c *call, name string) (procName, bool) {
	if name == "." || name == "" {
		p.fillRoot()
		return procName{dir: true, rel: "."}, true
	}
	if name == "mounts" {
		name = "self/mounts"
	}
	if slices.Contains(procFiles, name) {
		return procName{rel: name}, true
	}
	first, rest, _ := strings.Cut(name, "/")
	pid := first
	if first == "self" || first == "thread-self" {
		pid = strconv.FormatInt(field(readFileAt(p.files.proc, c.tid+"/status"), "Tgid:"), 10)
		if rest == "" {
			return procName{rel: pid, dir: true, link: true}, p.fillProcess(pid)
		}
	}
	if n, err := strconv.Atoi(pid); err != nil || strconv.Itoa(n) != pid || !p.ours(pid) {
		return procName{}, false
	}
	if rest == "" || slices.Contains(procDirs, rest) {
		return procName{rel: path.Join(pid, rest), dir: true}, p.fillProcess(pid)
	}
	if slices.Contains(procOwn, rest) {
		return procName{rel: pid + "/" + rest}, true
	}
	if slices.Contains(procLinks, rest) {
		return procName{rel: pid + "/" + rest, link: true}, true
	}
	kind, fd, _ := strings.Cut(rest, "/")
	if n, err := strconv.Atoi(fd); err != nil || strconv.Itoa(n) != fd || n < 0 || !slices.Contains(procDirs, kind) {
		return procName{}, false
	}
	return procName{rel: pid + "/" + rest, link: kind == "fd"}, true
}

// ours reports whether a process descends from the agent.
func (p *procServer) ours(pid string) bool {
	self := strconv.Itoa(unix.Getpid())
	for range 4096 {
		if pid = parentOf(p.files.proc, pid); pid == self {
			return true
		}
		if pid == "" || pid == "0" || pid == "1" {
			return false
		}
	}
	return false
}

// fillRoot makes the directory /proc of the tree show what there is.
func (p *procServer) fillRoot() {
	dir, err := openBeneath(p.jail.root, "proc")
	if err != nil {
		return
	}
	defer unix.Close(dir)
	have, err := namesIn(dir)
	if err != nil {
		return
	}
	for _, f := range procFiles {
		if !strings.Contains(f, "/") {
			placeholder(dir, f)
		}
	}
	_ = unix.Symlinkat("self", dir, "self") // its text is told by readlink
	for _, name := range have {
		if _, err := strconv.Atoi(name); err == nil && !p.ours(name) {
			p.clear(dir, name)
		}
	}
	names, err := namesIn(p.files.proc)
	if err != nil {
		return
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil && p.ours(name) {
			_ = unix.Mkdirat(dir, name, 0o555)
		}
	}
}

// clear removes the directory of a process that ended. The agent is in the tree too, so there is no name for it but by descriptor.
func (p *procServer) clear(dir int, name string) {
	if fd, err := openBeneath(dir, name); err == nil {
		if names, err := namesIn(fd); err == nil {
			for _, n := range names {
				p.clear(fd, n)
			}
		}
		unix.Close(fd)
		_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		return
	}
	_ = unix.Unlinkat(dir, name, 0)
}

// fillProcess makes the directory of a process in the tree.
func (p *procServer) fillProcess(pid string) bool {
	proc, err := openBeneath(p.jail.root, "proc")
	if err != nil {
		return false
	}
	defer unix.Close(proc)
	_ = unix.Mkdirat(proc, pid, 0o555)
	dir, err := openBeneath(proc, pid)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	for _, f := range procOwn {
		placeholder(dir, f)
	}
	for _, l := range procLinks {
		_ = unix.Symlinkat(l, dir, l)
	}
	for _, d := range procDirs {
		_ = unix.Mkdirat(dir, d, 0o555)
		p.fillFDs(dir, pid, d)
	}
	return true
}

// fillFDs lists the descriptors of a process.
func (p *procServer) fillFDs(dir int, pid, name string) {
	at, err := openBeneath(dir, name)
	if err != nil {
		return
	}
	defer unix.Close(at)
	have, err := namesIn(at)
	if err != nil {
		return
	}
	var now []string
	c := &call{tid: pid}
	_ = p.files.asTask(c, func() error {
		real, err := unix.Openat(p.files.proc, pid+"/"+name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(real)
		now, err = namesIn(real)
		return err
	})
	for _, n := range have {
		if !slices.Contains(now, n) {
			_ = unix.Unlinkat(at, n, 0)
		}
	}
	for _, n := range now {
		if name == "fd" {
			_ = unix.Symlinkat(n, at, n)
		} else {
			placeholder(at, n)
		}
	}
}

func placeholder(dir int, name string) {
	if fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444); err == nil {
		unix.Close(fd)
	}
}

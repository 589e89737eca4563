package sandbox

// This file gives a step without namespaces its terminals. No devpts can be mounted, so they are made in the container's own. Who is
// not trusted: the step, which must not have the container's other terminals. It can open none by name, as /dev/pts of its tree is a
// plain directory and Landlock keeps it from the real one: it gets descriptors, of what was made for it.

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// terminals are those of one step.
type terminals struct {
	pts int // the container's /dev/pts; -1: it has none
	// own are open with O_PATH, by name: a name is another's once its terminal is gone, and this opens nothing then.
	own map[string]int
}

// findTerminals opens the container's /dev/pts.
func findTerminals() int {
	fd, err := openDir("/dev/pts")
	if err != nil {
		return -1
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		unix.Close(fd)
		return -1
	}
	return fd
}

// make makes a terminal that belongs to uid, and returns the side that is not the step's (pts(4)).
func (t *terminals) make(j *jail, flags int, uid uint32) (int, error) {
	if t.pts < 0 {
		return -1, unix.ENOENT
	}
	t.forget(j)
	master, err := unix.Openat(t.pts, "ptmx", flags&(unix.O_ACCMODE|unix.O_NONBLOCK)|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	name, fd := strconv.FormatUint(uint64(n), 10), -1
	if err == nil {
		fd, err = unix.Openat(t.pts, name, pathOnly|unix.O_NOFOLLOW, 0)
	}
	if err == nil && uid != 0 {
		err = unix.Fchownat(fd, "", int(uid), -1, unix.AT_EMPTY_PATH)
	}
	if err != nil {
		unix.Close(master)
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, err
	}
	if old, ok := t.own[name]; ok {
		unix.Close(old)
	}
	t.own[name] = fd
	if dir, err := openBeneath(j.root, "dev/pts"); err == nil {
		placeholder(dir, name) // so that it is seen
		unix.Close(dir)
	}
	return master, nil
}

// forget drops those that are gone.
func (t *terminals) forget(j *jail) {
	for name, fd := range t.own {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Nlink > 0 {
			continue
		}
		unix.Close(fd)
		delete(t.own, name)
		if dir, err := openBeneath(j.root, "dev/pts"); err == nil {
			_ = unix.Unlinkat(dir, name, 0)
			unix.Close(dir)
		}
	}
}

func (t *terminals) close() {
	for _, fd := range t.own {
		unix.Close(fd)
	}
	t.own = nil
}

// terminalName says which name in /dev/pts is meant; names with ".." are nobody's.
func terminalName(name string) (string, bool) {
	if !strings.HasPrefix(name, "/dev/") || strings.Contains(name, "..") {
		return "", false
	}
	if name = path.Clean(name); name == "/dev/ptmx" {
		return "ptmx", true
	}
	name, ok := strings.CutPrefix(name, "/dev/pts/")
	if _, err := strconv.ParseUint(name, 10, 31); ok && (err == nil || name == "ptmx") {
		return name, true
	}
	return "", false
}

// terminal answers a call that names one of the step's terminals, or the file that makes one.
func (p *procServer) terminal(c *call, pc procCall, name string) (answer, bool) {
	t := &p.jail.terminals
	if name, ok := terminalName(name); ok && t.pts >= 0 {
		if name == "ptmx" {
			return p.atTerminal(c, pc, t.pts, name), true
		}
		if fd, ok := t.own[name]; ok {
			return p.atTerminal(c, pc, fd, ""), true
		}
	}
	return answer{}, false
}

// atTerminal does a call on name in the directory fd, or on what fd is.
func (p *procServer) atTerminal(c *call, pc procCall, fd int, name string) answer {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return failed(err)
	}
	if name == "" && st.Nlink == 0 {
		p.jail.terminals.forget(p.jail)
		return proceed // it does not exist, which the kernel says
	}
	switch pc.op {
	case opReadlink:
		return proceed
	case opAccess:
		return answer{}
	case opStatx:
		return p.tellStatx(c, pc, fd, name)
	case opStat:
		return p.tellStat(c, pc, &st)
	}
	flags := int(int32(c.args[pc.arg]))
	if flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		return answer{errno: unix.EEXIST}
	}
	if flags&unix.O_DIRECTORY != 0 {
		return answer{errno: unix.ENOTDIR}
	}
	var opened int
	var err error
	if name == "ptmx" {
		uid, _, ok := p.files.idsOf(c)
		if !ok {
			return proceed
		}
		opened, err = p.jail.terminals.make(p.jail, flags, uid)
	} else {
		// Never as a controlling terminal: it would be the agent's.
		self := "self/fd/" + strconv.Itoa(fd)
		err = p.files.asTask(c, func() error {
			opened, err = unix.Openat(p.files.proc, self, flags&(unix.O_ACCMODE|unix.O_NONBLOCK)|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
			return err
		})
	}
	if err != nil {
		return failed(err)
	}
	defer unix.Close(opened)
	return p.give(c, opened, flags)
}

// openMaster makes the terminal that a step was asked to have.
func (st *step) openMaster() (int, error) {
	if st.jail == nil || st.srv.swap != nil { // there is a /dev/pts
		return unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	fd, err := st.jail.terminals.make(st.jail, unix.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return -1, fmt.Errorf("%w: this container has no /dev/pts, and none can be mounted: %s", ErrHost, mendContainer())
	}
	return fd, err
}

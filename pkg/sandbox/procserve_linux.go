package sandbox

// This file shows a step without namespaces a /proc, where none can be mounted: a filter reports the calls that open, read or look
// at a name, and those that begin with /proc/ are answered here. Who is not trusted: the step. The agent could read what the
// step must not (the environment of other processes of the container, and through links of theirs its files), so:
//
//   - Only files on a list are served, and only of processes that descend from the agent; everything else does not exist.
//   - They are opened with the ids of the task that asks, for reading, by a name that this program puts together.
//   - No directory of the real /proc is ever handed out: it would be a way up, out of the tree. Directories are plain ones in the tree,
//     filled when they are looked at.
//   - Links are told as text; only a task's own descriptors and its program are opened through them, and those it has.

import (
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procFiles are the files that every step may read, by name below /proc.
var procFiles = []string{
	"cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version", "swaps", "vmstat",
	"sys/kernel/cap_last_cap", "sys/kernel/ngroups_max", "sys/kernel/osrelease", "sys/kernel/ostype", "sys/kernel/overflowgid",
	"sys/kernel/overflowuid", "sys/kernel/pid_max", "sys/kernel/random/boot_id", "sys/kernel/random/uuid", "sys/kernel/threads-max",
	"sys/kernel/version", "sys/fs/file-max", "sys/fs/nr_open", "sys/fs/pipe-max-size", "sys/net/core/somaxconn",
	"sys/vm/max_map_count", "sys/vm/mmap_min_addr", "sys/vm/overcommit_memory",
}

// procOwn are the files of a process that the step's processes may read of each other, procLinks the links.
var (
	procOwn = []string{
		"auxv", "cgroup", "cmdline", "comm", "environ", "io", "limits", "loginuid", "maps", "mountinfo", "mounts", "oom_score", "oom_score_adj",
		"sessionid", "smaps", "smaps_rollup", "stat", "statm", "status", "wchan",
	}
	procLinks = []string{"cwd", "exe", "root"}
	procDirs  = []string{"fd", "fdinfo"}
)

// procServer answers the filter of one step.
type procServer struct {
	files *supervisor // how names and memory of tasks are read
	jail  *jail
	fd    int
	stop  int
	done  chan struct{}
}

// procCall is a call that takes a name: where in its arguments things are; -1: it has none.
type procCall struct {
	nr             uint32
	op             sysop
	dir, path, arg int // arg: the first of the operation's own
	flags          int // AT_*
	nofollow       bool
}

// The operations beside opOpen, opStat and opStatx.
const (
	opReadlink sysop = 200 + iota
	opAccess
)

// procProgram reports the calls of the machine's own table.
func procProgram() []unix.SockFilter {
	notify := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_USER_NOTIF}
	allow := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW}
	prog := []unix.SockFilter{{Code: bpfLoad, K: dataArch}, {Code: bpfJeq, K: confinedTables[0].arch, Jt: 1}, allow, {Code: bpfLoad, K: dataNr}}
	for _, c := range procCalls {
		prog = append(prog, unix.SockFilter{Code: bpfJeq, K: c.nr, Jf: 1}, notify)
	}
	for _, c := range deviceABIs(false)[0].calls {
		prog = append(
			prog, unix.SockFilter{Code: bpfJeq, K: c.nr, Jf: 4}, unix.SockFilter{Code: bpfLoad, K: dataArgs + 8*uint32(c.when.arg)},
			unix.SockFilter{Code: bpfJset, K: c.when.mask, Jf: 1}, notify, allow,
		)
	}
	return append(prog, allow)
}

// newProcServer answers what comes from a listener until close.
func (s *server) newProcServer(j *jail, listener int) (*procServer, error) {
	p := &procServer{
		files: &supervisor{fd: listener, proc: s.hostProc, number: decimal, jail: j, real: true}, jail: j, fd: listener, done: make(chan struct{}),
	}
	p.files.mem = fileMemory{p.files}
	err := unix.Fstatfs(j.root, &p.files.rootfs)
	if err != nil {
		return nil, err
	}
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	go p.serve()
	return p, nil
}

func (p *procServer) close() {
	if p == nil {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(p.stop, one[:])
	<-p.done
	unix.Close(p.fd)
	unix.Close(p.stop)
}

func (p *procServer) serve() {
	defer close(p.done)
	runtime.LockOSThread() // never unlocked: its ids change
	serveNotifs(p.fd, p.stop, p.judge, nil)
}

func (p *procServer) judge(n *notif) answer {
	i := slices.IndexFunc(procCalls, func(c procCall) bool { return c.nr == uint32(n.nr) })
	if i < 0 {
		return p.files.judge(n)
	}
	pc := procCalls[i]
	c := &call{n: n, args: &n.args, tid: decimal(n.pid)}
	name, err := p.files.readString(c, c.args[pc.path], unix.PathMax)
	if err != nil {
		return proceed
	}
	if a, ok := p.terminal(c, pc, name); ok {
		return a
	}
	name, ok := procPath(name)
	if !ok {
		if p.jail.devices || p.files.makes {
			return p.files.judge(n)
		}
		return proceed
	}
	at, ok := p.find(c, name)
	if !ok {
		return proceed // it does not exist, which the kernel says
	}
	nofollow := pc.nofollow || pc.flags >= 0 && c.args[pc.flags]&unix.AT_SYMLINK_NOFOLLOW != 0
	switch pc.op {
	case opOpen:
		return p.open(c, at, int(int32(c.args[pc.arg])))
	case opReadlink:
		return p.readlink(c, at, c.args[pc.arg], int(int32(c.args[pc.arg+1])))
	case opAccess:
		return p.access(c, at, uint32(c.args[pc.arg]))
	}
	return p.stat(c, at, pc, nofollow)
}

// handle opens what is served: a directory of the tree, or a file of /proc with the task's ids.
func (p *procServer) handle(c *call, at procName, flags int) (fd int, err error) {
	if at.dir {
		return openat2(p.jail.root, path.Join("proc", at.rel), &unix.OpenHow{
			Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
	}
	err = p.files.asTask(c, func() error {
		fd, err = unix.Openat(p.files.proc, at.rel, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// ofProc reports whether what a link of a process leads to is itself a file of /proc, or cannot be told.
func (p *procServer) ofProc(c *call, at procName) bool {
	fd, err := p.handle(c, at, unix.O_PATH)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) != nil || fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC
}

const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_TRUNC | unix.O_APPEND

func (p *procServer) open(c *call, at procName, flags int) answer {
	base := path.Base(at.rel)
	if at.link && !at.dir {
		if flags&unix.O_NOFOLLOW != 0 {
			return answer{errno: unix.ELOOP}
		}
		if base == "cwd" || base == "root" {
			return proceed // not through a link
		}
	}
	own := at.link && !at.dir && base != "exe" // a descriptor that it has: opened as it asks
	if flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		return answer{errno: unix.EEXIST}
	}
	if !own && flags&writing != 0 {
		return answer{errno: unix.EACCES}
	}
	if !at.dir && flags&unix.O_DIRECTORY != 0 {
		return answer{errno: unix.ENOTDIR}
	}
	keep := unix.O_NONBLOCK | unix.O_NOCTTY
	if own {
		if flags&writing != 0 && p.ofProc(c, at) { // it was given for reading
			return answer{errno: unix.EACCES}
		}
		keep |= writing
	}
	// A fifo with nobody at its other end would have us wait, and all of the step with us: its task does not wait either.
	fd, err := p.handle(c, at, flags&keep|unix.O_NONBLOCK)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	if flags&unix.O_NONBLOCK == 0 {
		if err := blocking(fd); err != nil {
			return failed(err)
		}
	}
	return p.give(c, fd, flags)
}

// give answers a call with a descriptor.
func (p *procServer) give(c *call, fd, flags int) answer {
	if !p.files.alive(c) {
		return proceed
	}
	if errno := inject(p.fd, c.n.id, fd, flags); errno != 0 {
		return answer{errno: errno}
	}
	return answer{sent: true}
}

func blocking(fd int) error {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, have&^unix.O_NONBLOCK)
	return err
}

func (p *procServer) readlink(c *call, at procName, buf uint64, size int) answer {
	if !at.link {
		return answer{errno: unix.EINVAL}
	}
	text := at.rel
	if !at.dir { // else it is /proc/self
		var err error
		if text, err = p.files.linkOf(c, at.rel); err != nil {
			return failed(err)
		}
	}
	if size <= 0 {
		return answer{errno: unix.EINVAL}
	}
	text = text[:min(len(text), size)]
	if err := p.files.writeMemory(c, buf, []byte(text)); err != nil {
		return failed(err)
	}
	return answer{val: int64(len(text))}
}

func (p *procServer) access(c *call, at procName, mode uint32) answer {
	if mode&unix.W_OK != 0 {
		return answer{errno: unix.EACCES}
	}
	fd, err := p.handle(c, at, unix.O_PATH)
	if err != nil {
		return failed(err)
	}
	unix.Close(fd)
	return answer{}
}

func (p *procServer) stat(c *call, at procName, pc procCall, nofollow bool) answer {
	flags := unix.O_PATH
	if nofollow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := p.handle(c, at, flags)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	if pc.op == opStatx {
		return p.tellStatx(c, pc, fd, "")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed(err)
	}
	return p.tellStat(c, pc, &st)
}

func (p *procServer) tellStat(c *call, pc procCall, st *unix.Stat_t) answer {
	if err := p.files.writeMemory(c, c.args[pc.arg], statBytes(st, statNative)); err != nil {
		return failed(err)
	}
	return answer{}
}

// tellStatx answers for name in the directory fd, or for what fd is.
func (p *procServer) tellStatx(c *call, pc procCall, fd int, name string) answer {
	var st unix.Statx_t
	if err := unix.Statx(fd, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, int(uint32(c.args[pc.arg+1])), &st); err != nil {
		return failed(err)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)) //nolint:gosec // as the kernel lays it out
	if err := p.files.writeMemory(c, c.args[pc.arg+2], b); err != nil {
		return failed(err)
	}
	return answer{}
}

// fileMemory is that of a task by its file in /proc.
type fileMemory struct{ s *supervisor }

func (fileMemory) piece() int { return 256 }

func (m fileMemory) read(pid int, addr uint64, b []byte) error {
	return m.open(pid, os.O_RDONLY, func(fd int) error {
		n, err := unix.Pread(fd, b, int64(addr))
		return whole(n, len(b), err)
	})
}

func (m fileMemory) write(pid int, addr uint64, b []byte) error {
	return m.open(pid, os.O_WRONLY, func(fd int) error {
		n, err := unix.Pwrite(fd, b, int64(addr))
		return whole(n, len(b), err)
	})
}

func whole(n, want int, err error) error {
	if err == nil && n != want {
		return syscall.EFAULT
	}
	return err
}

func (m fileMemory) open(pid, flags int, do func(fd int) error) error {
	name := strconv.Itoa(pid) + "/mem"
	fd, err := unix.Openat(m.s.proc, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		err = m.s.asTask(&call{tid: strconv.Itoa(pid)}, func() error {
			fd, err = unix.Openat(m.s.proc, name, flags|unix.O_CLOEXEC, 0)
			return err
		})
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}

package sandbox

// This file sees to it that an owner which a single uid cannot keep is never lost in silence. The kernel refuses such
// a chown itself (EINVAL), but there are programs that do not look: tar of busybox, "chown || true". A seccomp
// filter therefore reports every chown to the agent, which refuses it with the errno people know (EPERM), and fails the
// step, whatever its exit code; a chown to root takes the record of another owner off the file. Programs of other
// machines are covered too: qemu makes the host's system calls. Who is not trusted: the step, whose paths are only
// resolved below its own root, and whose file is looked at by descriptor.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// idCall is a system call that takes ids: the indexes of its arguments that are.
type idCall struct {
	nr    uint32
	ids   []int
	path  int  // argument that is a path; -1: there is none
	dir   int  // argument that is the directory's descriptor; -1: the working directory
	fd    int  // argument that is the file's descriptor; -1
	flags int  // argument with AT_SYMLINK_NOFOLLOW; -1
	link  bool // does not follow the last symlink
	short bool // 16-bit ids
}

// abi is the calls of one system call table.
type abi struct {
	arch  uint32 // AUDIT_ARCH_*
	calls []idCall
}

func chownCall(nr uint32, link, short bool) idCall {
	return idCall{nr: nr, ids: []int{1, 2}, path: 0, dir: -1, fd: -1, flags: -1, link: link, short: short}
}

func fchownCall(nr uint32, short bool) idCall {
	return idCall{nr: nr, ids: []int{1, 2}, path: -1, dir: -1, fd: 0, flags: -1, short: short}
}

func fchownatCall(nr uint32) idCall {
	return idCall{nr: nr, ids: []int{2, 3}, path: 1, dir: 0, fd: -1, flags: 4}
}

// ownerProgram returns the filter: every call of the tables is reported.
func ownerProgram(abis []abi) []unix.SockFilter {
	const (
		offNr, offArch = 0, 4
		ld             = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq            = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret            = unix.BPF_RET | unix.BPF_K
	)
	allow := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}
	notify := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}
	var prog []unix.SockFilter
	for _, a := range abis {
		body := []unix.SockFilter{{Code: ld, K: offNr}}
		for _, c := range a.calls {
			body = append(body, unix.SockFilter{Code: jeq, K: c.nr, Jf: 1}, notify)
		}
		body = append(body, allow)
		prog = append(prog, unix.SockFilter{Code: ld, K: offArch}, unix.SockFilter{Code: jeq, K: a.arch, Jf: uint8(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, allow)
}

// ownerWatch listens to the filter of one step.
type ownerWatch struct {
	fd   int // the listener
	stop int // eventfd
	proc int // procfs of our pid namespace; -1: there is none
	done chan struct{}

	rootfs unix.Statfs_t

	mu      sync.Mutex // guards refused
	refused []string
}

// watchOwners installs the filter on the calling thread, for all that it starts, and answers it until close is
// called. Where a filter cannot be had (an outer one listens already), nil is returned: the kernel's own refusal is left.
func watchOwners(proc, root int) *ownerWatch {
	var rootfs unix.Statfs_t
	if len(hostABIs) == 0 || unix.Fstatfs(root, &rootfs) != nil {
		return nil
	}
	prog := ownerProgram(hostABIs)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog))) //nolint:gosec // no wrapper
	if errno != 0 {
		return nil
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(int(fd))
		return nil
	}
	w := &ownerWatch{fd: int(fd), stop: stop, proc: proc, rootfs: rootfs, done: make(chan struct{})}
	go w.serve()
	return w
}

// close ends the watch and returns what was refused.
func (w *ownerWatch) close() []string {
	if w == nil {
		return nil
	}
	var one [8]byte
	one[0] = 1
	_, _ = unix.Write(w.stop, one[:])
	<-w.done
	unix.Close(w.fd)
	unix.Close(w.stop)
	return w.refused
}

// notif and notifResp are struct seccomp_notif and seccomp_notif_resp (linux/seccomp.h).
type notif struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type notifResp struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

func (w *ownerWatch) serve() {
	defer close(w.done)
	for {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 || fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			return
		}
		var n notif
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 { //nolint:gosec // no wrapper
			continue // the caller was killed meanwhile
		}
		resp := w.judge(&n)
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp))) //nolint:gosec // no wrapper
	}
}

// judge refuses a chown of what is in the rootfs to somebody else and notes it. One to root changes what is recorded
// of the file. All others are the kernel's, which refuses what it cannot do as well.
func (w *ownerWatch) judge(n *notif) notifResp {
	let := notifResp{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	refuse := notifResp{id: n.id, errno: -int32(unix.EPERM)}
	c, ok := callOf(n)
	if !ok {
		return let
	}
	uid, gid := c.id(n, 0), c.id(n, 1)
	foreign := uid > 0 || gid > 0
	if w.proc < 0 { // the process cannot be looked at
		if foreign {
			w.note("a file", uid, gid)
			return refuse
		}
		return let
	}
	name, fd, err := w.target(c, n)
	if err != nil {
		return let
	}
	defer unix.Close(fd)
	if !w.inRootfs(fd) {
		return let
	}
	if foreign || recordRoot(fd, uid == 0, gid == 0) != nil {
		w.note(name, uid, gid)
		return refuse
	}
	return let
}

func callOf(n *notif) (idCall, bool) {
	for _, a := range hostABIs {
		if a.arch != n.arch {
			continue
		}
		for _, c := range a.calls {
			if c.nr == uint32(n.nr) {
				return c, true
			}
		}
	}
	return idCall{}, false
}

// id is the i-th id of a call; -1 leaves it as it is.
func (c idCall) id(n *notif, i int) int64 {
	v, none := uint32(n.args[c.ids[i]]), ^uint32(0)
	if c.short {
		v, none = v&0xffff, 0xffff
	}
	if v == none {
		return -1
	}
	return int64(v)
}

// maxRefused bounds what is remembered of a step; the first tells the story.
const maxRefused = 8

func (w *ownerWatch) note(name string, uid, gid int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.refused) < maxRefused {
		w.refused = append(w.refused, fmt.Sprintf("chown %s to %d:%d", name, uid, gid))
	}
}

// inRootfs reports whether the file is in the step's overlay. Neither its device nor its mount tell: those differ
// between layers of several file systems and between mount namespaces.
func (w *ownerWatch) inRootfs(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == w.rootfs.Type && fs.Fsid == w.rootfs.Fsid
}

// recordRoot notes that a file with a recorded owner belongs to root now.
func recordRoot(fd int, uid, gid bool) error {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	buf := make([]byte, 64)
	n, err := unix.Getxattr(path, layer.OwnerXattr, buf)
	if err != nil {
		return nil //nolint:nilerr // none is recorded; symlinks have none
	}
	var o layer.Owner
	if err := o.UnmarshalBinary(buf[:n]); err != nil {
		return nil //nolint:nilerr // not ours
	}
	if uid {
		o.UID = 0
	}
	if gid {
		o.GID = 0
	}
	if o == (layer.Owner{}) {
		return unix.Removexattr(path, layer.OwnerXattr)
	}
	b, err := o.MarshalBinary()
	if err != nil {
		return err
	}
	return unix.Setxattr(path, layer.OwnerXattr, b, 0)
}

// target opens the file that a call is about (O_PATH) and names it.
func (w *ownerWatch) target(c idCall, n *notif) (name string, fd int, err error) {
	pid := strconv.FormatUint(uint64(n.pid), 10)
	if c.fd >= 0 {
		link := pid + "/fd/" + strconv.Itoa(int(int32(n.args[c.fd])))
		if name, err = readlinkAt(w.proc, link); err != nil {
			return "", -1, err
		}
		fd, err = unix.Openat(w.proc, link, unix.O_PATH|unix.O_CLOEXEC, 0)
		return name, fd, err
	}
	name, err = w.readString(pid, n.args[c.path])
	if err != nil {
		return "", -1, err
	}
	flags := uint64(0)
	if c.flags >= 0 {
		flags = n.args[c.flags]
	}
	if !strings.HasPrefix(name, "/") {
		base := pid + "/cwd"
		if c.dir >= 0 && int32(n.args[c.dir]) != unix.AT_FDCWD {
			base = pid + "/fd/" + strconv.Itoa(int(int32(n.args[c.dir])))
		}
		if name == "" && flags&unix.AT_EMPTY_PATH != 0 {
			if name, err = readlinkAt(w.proc, base); err != nil {
				return "", -1, err
			}
			fd, err = unix.Openat(w.proc, base, unix.O_PATH|unix.O_CLOEXEC, 0)
			return name, fd, err
		}
		dir, err := readlinkAt(w.proc, base)
		if err != nil {
			return "", -1, err
		}
		name = dir + "/" + name
	}
	root, err := unix.Openat(w.proc, pid+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", -1, err
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if c.link || flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how.Flags |= unix.O_NOFOLLOW
	}
	fd, err = unix.Openat2(root, name, &how)
	return name, fd, err
}

func readlinkAt(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// readString reads a path out of a process's memory.
func (w *ownerWatch) readString(pid string, addr uint64) (string, error) {
	fd, err := unix.Openat(w.proc, pid+"/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	mem := os.NewFile(uintptr(fd), "mem")
	defer mem.Close()
	buf := make([]byte, 0, unix.PathMax)
	for len(buf) < unix.PathMax {
		// Up to the end of the page: the next one may not be there.
		n := int(4096 - addr%4096)
		part := make([]byte, n)
		got, err := mem.ReadAt(part, int64(addr))
		if got == 0 {
			return "", errors.Join(err, unix.EFAULT)
		}
		part = part[:got]
		if i := strings.IndexByte(string(part), 0); i >= 0 {
			return string(append(buf, part[:i]...)), nil
		}
		buf = append(buf, part...)
		addr += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}

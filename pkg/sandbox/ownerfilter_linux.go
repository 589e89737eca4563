package sandbox

// This file sees to it that an owner which a single uid cannot keep is never lost in silence. The kernel refuses such
// a chown itself (EINVAL), but there are programs that do not look: tar of busybox, "chown || true". A seccomp
// filter therefore reports every one to the agent, which refuses it with the errno people know (EPERM), and fails the
// step, whatever its exit code. Programs of other machines are covered too: qemu makes the host's system calls.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
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

// ownerProgram returns the filter: ids 0 and -1 pass, others are reported.
func ownerProgram(abis []abi) []unix.SockFilter {
	const (
		offNr, offArch, offArgs = 0, 4, 16
		ld                      = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jeq                     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		and                     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		ret                     = unix.BPF_RET | unix.BPF_K
		ja                      = unix.BPF_JMP | unix.BPF_JA
	)
	allow := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}
	notify := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}
	var prog []unix.SockFilter
	for _, a := range abis {
		body := []unix.SockFilter{{Code: ld, K: offNr}}
		for _, c := range a.calls {
			var check []unix.SockFilter
			for _, arg := range c.ids {
				check = append(check, unix.SockFilter{Code: ld, K: offArgs + 8*uint32(arg)}) // the lower half: hosts are little endian
				none := ^uint32(0)
				if c.short {
					none = 0xffff
					check = append(check, unix.SockFilter{Code: and, K: none})
				}
				check = append(check,
					unix.SockFilter{Code: jeq, K: 0, Jt: 2},
					unix.SockFilter{Code: jeq, K: none, Jt: 1},
					notify)
			}
			check = append(check, allow)
			body = append(body, unix.SockFilter{Code: jeq, K: c.nr, Jf: uint8(len(check))})
			body = append(body, check...)
		}
		body = append(body, allow)
		prog = append(prog,
			unix.SockFilter{Code: ld, K: offArch},
			unix.SockFilter{Code: jeq, K: a.arch, Jt: 1},
			unix.SockFilter{Code: ja, K: uint32(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, allow)
}

// ownerWatch listens to the filter of one step.
type ownerWatch struct {
	fd   int // the listener
	stop int // eventfd
	proc int // procfs of our pid namespace; -1: there is none
	dev  uint64
	done chan struct{}

	mu      sync.Mutex // guards refused
	refused []string
}

// watchOwners installs the filter on the calling thread, for all that it starts, and answers it until close is
// called. Where a filter cannot be had (an outer one listens already), nil is returned: the kernel's own refusal is left.
func watchOwners(proc int, dev uint64) *ownerWatch {
	if len(hostABIs) == 0 {
		return nil
	}
	prog := ownerProgram(hostABIs)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return nil
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(int(fd))
		return nil
	}
	w := &ownerWatch{fd: int(fd), stop: stop, proc: proc, dev: dev, done: make(chan struct{})}
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
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the caller was killed meanwhile
		}
		resp := w.judge(&n)
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(w.fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp)))
	}
}

// judge refuses a chown of what is in the rootfs and notes it; the kernel answers all others, and refuses them too.
func (w *ownerWatch) judge(n *notif) notifResp {
	let := notifResp{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	for _, a := range hostABIs {
		if a.arch != n.arch {
			continue
		}
		for _, c := range a.calls {
			if c.nr != uint32(n.nr) {
				continue
			}
			name := "a file"
			if w.proc >= 0 {
				var dev uint64
				var err error
				if name, dev, err = w.target(c, n); err != nil || dev != w.dev {
					return let
				}
			}
			w.mu.Lock()
			if len(w.refused) < maxRefused {
				w.refused = append(w.refused, fmt.Sprintf("chown %s to %d:%d", name, int32(n.args[c.ids[0]]), int32(n.args[c.ids[1]])))
			}
			w.mu.Unlock()
			return notifResp{id: n.id, errno: -int32(unix.EPERM)}
		}
	}
	return let
}

// maxRefused bounds what is remembered of a step; the first tells the story.
const maxRefused = 8

// target finds the file that a call is about: its name in the rootfs and its device.
func (w *ownerWatch) target(c idCall, n *notif) (name string, dev uint64, err error) {
	pid := strconv.FormatUint(uint64(n.pid), 10)
	var st unix.Stat_t
	if c.fd >= 0 {
		link := pid + "/fd/" + strconv.Itoa(int(int32(n.args[c.fd])))
		if err := unix.Fstatat(w.proc, link, &st, 0); err != nil {
			return "", 0, err
		}
		name, err := readlinkAt(w.proc, link)
		return name, st.Dev, err
	}
	name, err = w.readString(pid, n.args[c.path])
	if err != nil {
		return "", 0, err
	}
	follow := !c.link && (c.flags < 0 || n.args[c.flags]&unix.AT_SYMLINK_NOFOLLOW == 0)
	if !strings.HasPrefix(name, "/") {
		base := pid + "/cwd"
		if c.dir >= 0 && int32(n.args[c.dir]) != unix.AT_FDCWD {
			base = pid + "/fd/" + strconv.Itoa(int(int32(n.args[c.dir])))
		}
		dir, err := readlinkAt(w.proc, base)
		if err != nil {
			return "", 0, err
		}
		name = dir + "/" + name
	}
	root, err := unix.Openat(w.proc, pid+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat2(root, name, &how)
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return name, st.Dev, err
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

package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confinement is what keeps a process in where there is no namespace: it cannot gain privileges, reach files outside of its
// tree, or signal others; and it has fewer capabilities than the agent and than other processes of a container have, so
// that it can trace none of them and read nothing of theirs in /proc.
type confinement struct {
	landlock int // a ruleset; 0: none
	header   *unix.CapUserHeader
	caps     *[2]unix.CapUserData
}

// notConfined are capabilities that a step has in namespaces of its own only.
var notConfined = []uintptr{unix.CAP_SYS_CHROOT, unix.CAP_MKNOD, unix.CAP_SETPCAP, unix.CAP_AUDIT_WRITE}

// newConfinement makes one for a step in the tree at root.
func newConfinement(root int) (*confinement, error) {
	ruleset, err := newLandlock(root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	c := &confinement{landlock: ruleset, header: &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, caps: &[2]unix.CapUserData{}}
	var own [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &own[0]); err != nil {
		c.close()
		return nil, fmt.Errorf("reading capabilities: %w", err)
	}
	for _, b := range stepCaps {
		c.caps[b/32].Permitted |= 1 << (b % 32)
	}
	for _, b := range notConfined {
		c.caps[b/32].Permitted &^= 1 << (b % 32)
	}
	for i := range c.caps {
		c.caps[i].Permitted &= own[i].Permitted
		c.caps[i].Effective = c.caps[i].Permitted
	}
	return c, nil
}

func (c *confinement) close() {
	if c.landlock > 0 {
		unix.Close(c.landlock)
	}
}

// rightsMessage is a message with one descriptor, made before a fork and filled in by the child.
type rightsMessage struct {
	msg  unix.Msghdr
	iov  unix.Iovec
	byte [1]byte
	// struct cmsghdr and its data, as the kernel aligns them
	head unix.Cmsghdr
	fd   int32
	_    int32
}

// carry prepares the message that brings a listener to the parent. pidfd_getfd is refused by containers' profiles.
func (c *forkChild) carry() {
	r := &c.rights
	r.iov.Base = &r.byte[0]
	r.iov.SetLen(1)
	r.msg.Iov = &r.iov
	r.msg.SetIovlen(1)
	r.head.Level, r.head.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	r.head.SetLen(unix.CmsgLen(4))
	r.msg.Control = (*byte)(unsafe.Pointer(&r.head)) //nolint:gosec // as the kernel lays it out
	r.msg.SetControllen(unix.CmsgSpace(4))
}

// carried takes the listener.
func carried(sock int) (int, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("taking a listener: %w", err)
	}
	fds, err := rights(oob[:n])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("taking a listener: %w", unix.EBADMSG)
	}
	return fds[0], nil
}

// confinedCalls are the system calls of a table that tell a step with no network from one with it, and what could go around filters
// and tracers.
type confinedCalls struct {
	arch                                       uint32
	socket, socketcall, clone, clone3, uringUp uint32
	execve, execveat                           uint32 // 0: not traced
	x32                                        bool   // numbers from x32Bit on are another table
}

const x32Bit = 0x40000000

// confineProgram is the filter of a confined step: execve stops for the tracer; nothing is made that a tracer does not
// see; and without a network there are no sockets but unix ones.
func confineProgram(tables []confinedCalls, traced, net bool) []unix.SockFilter {
	ret := func(action uint32) unix.SockFilter { return unix.SockFilter{Code: bpfRet, K: action} }
	allow := ret(unix.SECCOMP_RET_ALLOW)
	errno := func(e unix.Errno) unix.SockFilter { return ret(unix.SECCOMP_RET_ERRNO | uint32(e)) }
	var prog []unix.SockFilter
	for _, t := range tables {
		body := []unix.SockFilter{{Code: bpfLoad, K: dataNr}}
		on := func(nr uint32, do ...unix.SockFilter) {
			if nr != 0 {
				body = append(append(body, unix.SockFilter{Code: bpfJeq, K: nr, Jf: uint8(len(do))}), do...)
			}
		}
		if t.x32 {
			body = append(body, unix.SockFilter{Code: bpfJset, K: x32Bit, Jf: 1}, errno(unix.ENOSYS))
		}
		on(t.uringUp, errno(unix.ENOSYS))
		on(t.clone3, errno(unix.ENOSYS))
		on(t.clone, unix.SockFilter{Code: bpfLoad, K: dataArgs}, unix.SockFilter{Code: bpfJset, K: unix.CLONE_UNTRACED, Jf: 1}, errno(unix.EPERM), allow)
		if !net {
			on(t.socket, unix.SockFilter{Code: bpfLoad, K: dataArgs}, unix.SockFilter{Code: bpfJeq, K: unix.AF_UNIX, Jt: 1}, errno(unix.EAFNOSUPPORT), allow)
			on(t.socketcall, errno(unix.EAFNOSUPPORT))
		}
		if traced {
			on(t.execve, ret(unix.SECCOMP_RET_TRACE))
			on(t.execveat, ret(unix.SECCOMP_RET_TRACE))
		}
		body = append(body, allow)
		prog = append(prog, unix.SockFilter{Code: bpfLoad, K: dataArch}, unix.SockFilter{Code: bpfJeq, K: t.arch, Jf: uint8(len(body))})
		prog = append(prog, body...)
	}
	// A table that is not known: nothing of it is needed.
	return append(prog, errno(unix.ENOSYS))
}

package sandbox

// This file lets a step make devices where its ids are real: in a user namespace, where the kernel makes none whatever the ids are, and in
// a container without namespaces, where a device would be the host's. As with a single id (supervise_create_linux.go), what is made is a
// file that says which device it is, and opens nothing. Who is not trusted: the step. A file is made with the ids of who asks, who has to be root.

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// deviceSource is a bit that the modes of devices have, and those of nothing else that mknod makes.
const deviceSource = unix.S_IFCHR

// deviceABIs are the calls that make devices, and, where there are some that programs should see as such, those that look at files.
func deviceABIs(seen bool) []abi {
	var out []abi
	for _, a := range hostABIs {
		var calls []sysCall
		for _, c := range a.calls {
			switch {
			case c.op == opMknod:
				c.when = &argTest{arg: c.arg, mask: deviceSource}
				calls = append(calls, c)
			case seen && (c.op == opStat || c.op == opStatx || c.op == opListxattr):
				calls = append(calls, c)
			}
		}
		out = append(out, abi{arch: a.arch, calls: calls})
	}
	return out
}

// hasDevices says whether a step sees devices that are files on disk. Those of /dev it does not.
func hasDevices(dirs []string) (bool, error) {
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Lstat(layer.OwnersFile(dir), &st) != nil {
			continue // none, as of almost all
		}
		list, err := layer.ReadOwners(dir)
		if err != nil {
			return false, err
		}
		for name, o := range list {
			if o.Type != 0 && !strings.HasPrefix(name, "dev/") {
				return true, nil
			}
		}
	}
	return false, nil
}

// superviseDevices puts the filter on this thread, whose children inherit it; the supervisor costs nothing before one of them makes a device.
// nil: there can be none (a chain of filters has one listener), and devices are refused.
func (st *step) superviseDevices() (*supervisor, error) {
	if len(hostABIs) == 0 {
		return nil, nil
	}
	prog := notifyProgram(deviceABIs(st.seen), false)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, superviseFlags, uintptr(unsafe.Pointer(&fprog))) //nolint:gosec // no wrapper
	if errno != 0 {
		return nil, nil
	}
	s := &supervisor{fd: int(fd), proc: st.srv.proc, number: decimal, done: make(chan struct{}), real: true}
	if s.proc < 0 {
		s.proc, s.number = st.srv.hostProc, translated
	}
	if err := s.whenAsked(st.tree.fd); err != nil {
		unix.Close(int(fd))
		return nil, err
	}
	return s, nil
}

// devicesInPlace answers a step that has the root of its container.
func (st *step) devicesInPlace(listener int) error {
	s := &supervisor{fd: listener, proc: st.srv.hostProc, number: decimal, done: make(chan struct{}), real: true, jail: st.jail}
	s.mem = fileMemory{s}
	if err := s.whenAsked(st.tree.fd); err != nil {
		unix.Close(listener)
		return err
	}
	st.devices = s
	return nil
}

// whenAsked has calls answered once there is one. Most steps make none, so no thread waits for it.
func (s *supervisor) whenAsked(rootfs int) error {
	if err := unix.Fstatfs(rootfs, &s.rootfs); err != nil {
		return fmt.Errorf("looking at the rootfs: %w", err)
	}
	var err error
	if s.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		unix.Close(s.stop)
		return err
	}
	s.listener = os.NewFile(uintptr(s.fd), "listener")
	conn, err := s.listener.SyscallConn()
	if err != nil {
		s.listener.Close()
		unix.Close(s.stop)
		return err
	}
	go func() {
		looked := false
		err := conn.Read(func(uintptr) bool {
			asked := looked
			looked = true
			return asked
		})
		if err != nil { // nobody asked
			close(s.done)
			return
		}
		s.serve()
	}()
	return nil
}

// closeDevices ends it and returns the devices that were made, by name.
func (s *supervisor) closeDevices() map[string]layer.Owner {
	if s == nil {
		return nil
	}
	one := [8]byte{1}
	_, _ = unix.Write(s.stop, one[:])
	_ = s.listener.SetReadDeadline(time.Unix(1, 0)) // ends the wait
	<-s.done
	s.listener.Close()
	unix.Close(s.stop)
	return s.made
}

// judgeDevice answers a call where ids are real.
func (s *supervisor) judgeDevice(c *call) answer {
	switch c.op {
	case opMknod:
		return s.makeDevice(c)
	case opStat, opStatx:
		return s.stat(c)
	case opListxattr:
		return s.listxattr(c)
	}
	return proceed
}

// deviceOf is what is recorded of a file that stands for a device, and its owner.
func (s *supervisor) deviceOf(f *file) (rec layer.Owner, ok bool) {
	if f.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return rec, false
	}
	var buf [64]byte
	n, err := s.attribute(f, buf[:])
	if err != nil || rec.UnmarshalBinary(buf[:n]) != nil || rec.Type == 0 {
		return layer.Owner{}, false
	}
	rec.UID, rec.GID = f.st.Uid, f.st.Gid
	return rec, true
}

// attribute reads the record of a file. In a chroot there is no name for a descriptor but in the /proc outside of it.
func (s *supervisor) attribute(f *file, buf []byte) (int, error) {
	if s.jail == nil {
		return unix.Getxattr(f.path(), layer.OwnerXattr, buf)
	}
	fd, err := unix.Openat(s.proc, "self/fd/"+strconv.Itoa(f.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Fgetxattr(fd, layer.OwnerXattr, buf)
}

// mayMakeDevices: root, which has to have the capability as well where steps do.
func (s *supervisor) mayMakeDevices(c *call) bool {
	uid, _, ok := s.idsOf(c)
	if !ok || uid != 0 {
		return false
	}
	if s.jail != nil {
		return true
	}
	caps, err := strconv.ParseUint(s.statusLine(c, "CapEff:"), 16, 64)
	return err == nil && caps&(1<<unix.CAP_MKNOD) != 0
}

// makeDevice is mknod where ids are real.
func (s *supervisor) makeDevice(c *call) answer {
	mode, dev := uint32(c.args[c.arg]), uint32(c.args[c.arg+1])
	kind := mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return proceed
	}
	rec := layer.Owner{Type: kind, Rdev: deviceNumber(dev)}
	if !s.mayMakeDevices(c) || isWhiteout(rec) {
		return answer{errno: unix.EPERM}
	}
	p, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer p.close()
	if p.slash || !s.alive(c) {
		return proceed
	}
	perm := s.umasked(c, p.parent, mode&0o7777)
	err = s.asTask(c, func() error {
		fd, err := unix.Openat(p.parent.fd, p.base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm&0o777)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b, err := rec.MarshalBinary()
		if err == nil {
			err = unix.Fsetxattr(fd, layer.OwnerXattr, b, 0)
		}
		if err == nil && (s.jail != nil || perm&^0o777 != 0) { // whose umask is not ours
			err = unix.Fchmod(fd, perm)
		}
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(p.parent.fd, p.base, 0))
		} else if s.inRootfs(fd) {
			s.madeDevice(p, rec)
		}
		return err
	})
	if err != nil {
		return failed(err)
	}
	return answer{}
}

// madeDevice remembers that there is one now.
func (s *supervisor) madeDevice(p *place, rec layer.Owner) {
	s.makes = true
	name := p.name()
	if s.jail != nil {
		parent, err := readlinkAt(s.proc, "self/fd/"+strconv.Itoa(p.parent.fd))
		if err != nil {
			return
		}
		name = path.Join(parent, p.base)
	}
	if name = strings.TrimLeft(name, "/"); strings.HasPrefix(name, "dev/") {
		return // of the step's own
	}
	if s.made == nil {
		s.made = map[string]layer.Owner{}
	}
	s.made[name] = layer.Owner{Type: rec.Type, Rdev: rec.Rdev}
}

// deviceNumber is a number as mknod(2) takes it, as stat(2) gives it.
func deviceNumber(dev uint32) uint64 {
	return unix.Mkdev(dev>>8&0xfff, dev&0xff|dev>>12&0xfff00)
}

// isWhiteout reports the device that overlayfs takes for a deletion.
func isWhiteout(o layer.Owner) bool { return o.Type == unix.S_IFCHR && o.Rdev == 0 }

// keepDevices notes in the sidecar of a tree which files in it are devices.
func keepDevices(tree string, made map[string]layer.Owner) error {
	if len(made) == 0 {
		return nil
	}
	all, err := layer.ReadOwners(tree)
	if err != nil {
		return err
	}
	for name, o := range made {
		if _, ok := all[name]; !ok {
			all[name] = o
		}
	}
	return layer.WriteOwners(tree, all)
}

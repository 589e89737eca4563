package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// newOwner is who owns what a task makes in a directory: the task's ids, but the directory's group where that is
// set-gid (inode_init_owner in the kernel).
func (s *supervisor) newOwner(c *call, parent *file) layer.Owner {
	have := s.tasks.of(s, c)
	o := layer.Owner{UID: have.fsuid, GID: have.fsgid}
	if parent.st.Mode&unix.S_ISGID != 0 {
		p, _ := s.owners.of(s, parent)
		o.GID = p.GID
	}
	return o
}

// umasked is the mode of something new: the task's umask is taken off, unless the directory has an ACL for that.
func (s *supervisor) umasked(c *call, parent *file, mode uint32) uint32 {
	if _, err := unix.Getxattr(parent.path(), "system.posix_acl_default", nil); err == nil {
		return mode
	}
	mask, err := strconv.ParseUint(s.statusLine(c, "Umask:"), 8, 32)
	if err != nil {
		mask = 0o022
	}
	return mode &^ uint32(mask)
}

// record gives what was just made to its owner; what cannot be kept is taken back.
func (s *supervisor) record(p *place, f *file, o layer.Owner) error {
	err := s.owners.set(s, f, o)
	if err == nil {
		return nil
	}
	s.note(fmt.Sprintf("making %s for %d:%d (%v)", p.name(), o.UID, o.GID, err))
	flags := 0
	if f.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	_ = unix.Unlinkat(p.parent.fd, p.base, flags)
	return unix.EPERM
}

// made opens what is at a place now.
func (p *place) made() (*file, error) {
	return opened(unix.Openat(p.parent.fd, p.base, pathOnly|unix.O_NOFOLLOW, 0))
}

// mkdir makes a directory for who is not root, or in a directory of a group.
func (s *supervisor) mkdir(c *call) answer {
	p, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer p.close()
	o := s.newOwner(c, p.parent)
	if o == (layer.Owner{}) {
		return proceed
	}
	mode := s.umasked(c, p.parent, uint32(c.args[c.arg])&0o1777)
	return s.make(c, p, o, func() error { return unix.Mkdirat(p.parent.fd, p.base, mode) })
}

// make makes something and records its owner.
func (s *supervisor) make(c *call, p *place, o layer.Owner, do func() error) answer {
	if !s.alive(c) {
		return proceed
	}
	if err := do(); err != nil {
		return failed(err)
	}
	f, err := p.made()
	if err != nil {
		return answer{} // it was removed already
	}
	defer f.close()
	if err := s.record(p, f, o); err != nil {
		return failed(err)
	}
	return answer{}
}

// symlink makes a symlink for who is not root, or in a directory of a group.
func (s *supervisor) symlink(c *call) answer {
	p, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer p.close()
	o := s.newOwner(c, p.parent)
	if o == (layer.Owner{}) || p.slash {
		return proceed
	}
	text, err := s.readString(c, c.args[c.old], unix.PathMax)
	if err != nil {
		return proceed
	}
	return s.make(c, p, o, func() error { return unix.Symlinkat(text, p.parent.fd, p.base) })
}

// mknod makes devices, which the kernel lets nobody make in a user namespace: a file on disk that says which one it is.
func (s *supervisor) mknod(c *call) answer {
	p, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer p.close()
	o, mode, dev := s.newOwner(c, p.parent), uint32(c.args[c.arg]), uint32(c.args[c.arg+1])
	kind := mode & unix.S_IFMT
	device := kind == unix.S_IFCHR || kind == unix.S_IFBLK
	if !device && o == (layer.Owner{}) || p.slash {
		return proceed
	}
	perm := s.umasked(c, p.parent, mode&0o7777)
	if !device {
		return s.make(c, p, o, func() error { return unix.Mknodat(p.parent.fd, p.base, kind|perm, 0) })
	}
	o.Type, o.Rdev = kind, deviceNumber(dev)
	if o.UID != 0 && !s.tasks.of(s, c).privileged() || isWhiteout(o) {
		return answer{errno: unix.EPERM}
	}
	return s.make(c, p, o, func() error {
		fd, err := unix.Openat(p.parent.fd, p.base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm&0o777)
		if err != nil {
			return err
		}
		if perm&^0o777 != 0 {
			err = unix.Fchmod(fd, perm)
		}
		return errors.Join(err, unix.Close(fd))
	})
}

// open makes a file for who is not root, or in a directory of a group, and hands its descriptor over. Files that are there
// already are the kernel's.
func (s *supervisor) open(c *call) answer {
	flags, mode, ok := s.openArgs(c)
	if !ok || flags&createFlags == 0 {
		return proceed
	}
	name, err := s.readString(c, c.args[c.path], unix.PathMax)
	if err != nil {
		return proceed
	}
	if flags&createFlags != unix.O_CREAT && flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return s.tmpfile(c, name, flags, mode)
	}
	if name == "" || name[len(name)-1] == '/' {
		return proceed
	}
	for range maxLinks {
		p, err := s.placeOf(c, c.dir, name)
		if err != nil {
			return proceed
		}
		o := s.newOwner(c, p.parent)
		if o == (layer.Owner{}) || !s.alive(c) {
			p.close()
			return proceed
		}
		fd, err := unix.Openat(p.parent.fd, p.base, int(flags)|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, s.umasked(c, p.parent, mode))
		if err == nil {
			a := s.handOver(c, p, fd, flags, o)
			p.close()
			return a
		}
		next := ""
		if errors.Is(err, unix.EEXIST) && flags&(unix.O_EXCL|unix.O_NOFOLLOW) == 0 {
			next = dangling(p, name)
		}
		p.close()
		if next == "" {
			return proceed
		}
		name = next
	}
	return proceed
}

// dangling is where a symlink at the place leads that leads nowhere yet; "" when it is something else.
func dangling(p *place, name string) string {
	f, err := p.made()
	if err != nil || f.st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err == nil {
			f.close()
		}
		return ""
	}
	defer f.close()
	text, err := readlinkAt(f.fd, "")
	if err != nil || text == "" {
		return ""
	}
	if path.IsAbs(text) {
		return text
	}
	dir, _ := path.Split(name)
	return dir + text
}

// openArgs are the flags and mode of an open.
func (s *supervisor) openArgs(c *call) (flags uint64, mode uint32, ok bool) {
	switch {
	case c.op == opOpenat2: // struct open_how: flags, mode, resolve
		var how [24]byte
		if c.args[c.arg+1] < 24 || s.readMemory(c, c.args[c.arg], how[:]) != nil {
			return 0, 0, false
		}
		if binary.NativeEndian.Uint64(how[16:]) != 0 {
			return 0, 0, false // restricted ways to resolve: the kernel's
		}
		return binary.NativeEndian.Uint64(how[:]), uint32(binary.NativeEndian.Uint64(how[8:])), true
	case c.arg < 0:
		return unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, uint32(c.args[1]) & 0o7777, true
	}
	return uint64(uint32(c.args[c.arg])), uint32(c.args[c.arg+1]) & 0o7777, true
}

// tmpfile makes a file without a name.
func (s *supervisor) tmpfile(c *call, name string, flags uint64, mode uint32) answer {
	dir, err := opened(s.resolve(c, c.dir, name, pathOnly|unix.O_DIRECTORY))
	if err != nil {
		return proceed
	}
	defer dir.close()
	o := s.newOwner(c, dir)
	if o == (layer.Owner{}) || !s.alive(c) {
		return proceed
	}
	fd, err := unix.Openat(dir.fd, ".", int(flags)|unix.O_CLOEXEC, s.umasked(c, dir, mode))
	if err != nil {
		return failed(err)
	}
	return s.handOver(c, nil, fd, flags, o)
}

// handOver records the owner of a new file and gives its descriptor to the task, as the result of its call.
func (s *supervisor) handOver(c *call, p *place, fd int, flags uint64, o layer.Owner) answer {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return failed(err)
	}
	f := &file{fd: fd, st: st}
	if p == nil {
		if err := s.owners.set(s, f, o); err != nil {
			return answer{errno: unix.EPERM}
		}
	} else if err := s.record(p, f, o); err != nil {
		return failed(err)
	}
	if errno := inject(s.fd, c.n.id, fd, int(flags)); errno != 0 {
		return answer{errno: errno}
	}
	return answer{sent: true}
}

// link makes another name of something whose record is by name.
func (s *supervisor) link(c *call) answer {
	if !s.owners.anyNamed() {
		return proceed
	}
	flags := uint64(0)
	if c.flags >= 0 {
		flags = c.args[c.flags]
	}
	f, err := s.named(c, c.oldDir, c.old, flags&unix.AT_SYMLINK_FOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0)
	if err != nil {
		return proceed
	}
	defer f.close()
	rec, ok := s.owners.of(s, f)
	if !ok || hasXattrs(f.st.Mode) {
		return proceed
	}
	p, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer p.close()
	if p.slash || !s.alive(c) {
		return proceed
	}
	if err := unix.Linkat(unix.AT_FDCWD, f.path(), p.parent.fd, p.base, unix.AT_SYMLINK_FOLLOW); err != nil {
		return failed(err)
	}
	if made, err := p.made(); err == nil {
		defer made.close()
		if err := s.owners.setNamed(made, p.name(), rec); err != nil {
			s.note(fmt.Sprintf("linking %s (%v)", p.name(), err))
		}
	}
	return answer{}
}

// rename moves names that records are kept by.
func (s *supervisor) rename(c *call) answer {
	if !s.owners.anyNamed() {
		return proceed
	}
	from, err := s.place(c, c.oldDir, c.old)
	if err != nil {
		return proceed
	}
	defer from.close()
	to, err := s.place(c, c.dir, c.path)
	if err != nil {
		return proceed
	}
	defer to.close()
	flags := uint32(0)
	if c.flags >= 0 {
		flags = uint32(c.args[c.flags])
	}
	if flags&unix.RENAME_WHITEOUT != 0 || !s.inRootfs(from.parent.fd) {
		return proceed
	}
	if from.slash || to.slash {
		f, err := from.made()
		if err != nil {
			return proceed
		}
		f.close()
		if f.st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return proceed
		}
	}
	oldName, newName := from.name(), to.name()
	what, err := from.made()
	if err != nil {
		return proceed
	}
	defer what.close()
	rec, recorded := s.owners.of(s, what)
	if !s.alive(c) {
		return proceed
	}
	if err := unix.Renameat2(from.parent.fd, from.base, to.parent.fd, to.base, uint(flags)); err != nil {
		return failed(err)
	}
	if oldName != newName {
		s.owners.moved(oldName, newName, flags&unix.RENAME_EXCHANGE != 0)
		if recorded && !hasXattrs(what.st.Mode) { // it may have been copied up
			if f, err := to.made(); err == nil {
				err = s.owners.setNamed(f, newName, rec)
				f.close()
				if err != nil {
					s.note(fmt.Sprintf("renaming %s (%v)", newName, err))
				}
			}
		}
	}
	return answer{}
}

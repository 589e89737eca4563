package layer

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// create makes a new regular file for writing, in place of whatever is there.
func (a *applier) create(d dirHandle, base, name string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(d.fd, base, flags, 0o600)
	if err == unix.EEXIST {
		if err := a.clear(d, base, name); err != nil {
			return -1, err
		}
		fd, err = openat(d.fd, base, flags, 0o600)
	}
	if err == nil {
		a.mark(name)
	}
	return fd, err
}

// inPlace runs mk, which makes base and reports EEXIST when something is there; that is then removed.
func (a *applier) inPlace(d dirHandle, base, name string, mk func() error) error {
	err := mk()
	if err == unix.EEXIST {
		if err := a.clear(d, base, name); err != nil {
			return err
		}
		err = mk()
	}
	if err == nil {
		a.mark(name)
	}
	return err
}

func (a *applier) file(d dirHandle, base, name string, e *Entry) error {
	fd, err := a.create(d, base, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if e.Sparse != nil {
		err = a.holes(fd, e)
	} else {
		_, err = a.s.packed().(*packedReader).WriteTo(fdWriter(fd))
	}
	if err != nil {
		return err
	}
	return a.metadata(fd, name, e, Owner{})
}

// fdWriter writes to a descriptor.
type fdWriter int

func (f fdWriter) Write(p []byte) (int, error) {
	if err := writeAll(int(f), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// holes writes a sparse file's pieces where they belong.
func (a *applier) holes(fd int, e *Entry) error {
	if err := unix.Ftruncate(fd, e.Size); err != nil {
		return err
	}
	for _, x := range e.Sparse {
		if _, err := unix.Seek(fd, x.Offset, 0); err != nil {
			return err
		}
		for n := x.Length; n > 0; {
			c, err := a.s.m.chunk(n)
			if err != nil {
				return err
			}
			a.s.remain -= int64(len(c))
			n -= int64(len(c))
			if err := writeAll(fd, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// metadata gives an open regular file what e says, in the order that the kernel needs: a chown
// clears set-id bits and capabilities, and user xattrs need write permission. own is recorded beside the owner.
func (a *applier) metadata(fd int, name string, e *Entry, own Owner) error {
	if err := a.owner(fd, name, e, own); err != nil {
		return err
	}
	if len(e.Xattrs) > 0 {
		if err := a.xattrs(fd, name, e); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, uint32(e.Mode)); err != nil {
		return err
	}
	return futimens(fd, timespec(e.ModTime))
}

// owner sets the owner of an open regular file or directory, or records it.
func (a *applier) owner(fd int, name string, e *Entry, own Owner) error {
	if a.o.Ownership == OwnIDs {
		err := chownKnown(e, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) })
		if err == unix.EINVAL {
			own.UID, own.GID = uint32(e.UID), uint32(e.GID)
			a.warnUnmapped(name, e)
			err = unix.Fchown(fd, a.rootUID(), a.rootGID())
		}
		if err != nil {
			return ownError(e, err)
		}
	} else {
		own.UID, own.GID = uint32(e.UID), uint32(e.GID)
	}
	if own == (Owner{}) {
		return nil
	}
	v, err := own.MarshalBinary()
	if err != nil {
		return err
	}
	if err := unix.Fsetxattr(fd, OwnerXattr, v, 0); err != nil {
		return fmt.Errorf("recording owner %d:%d in an extended attribute: %w%s", e.UID, e.GID, err, xattrHint(err))
	}
	return nil
}

func xattrHint(err error) string {
	if err == unix.EOPNOTSUPP {
		return " (this file system keeps no user.* attributes: use ext4, xfs, btrfs, or tmpfs from Linux 6.6 on)"
	}
	return ""
}

// chownKnown calls chown, or reports EINVAL for the ids that mean "leave it" to the kernel.
func chownKnown(e *Entry, chown func(uid, gid int) error) error {
	if e.UID == maxID || e.GID == maxID {
		return unix.EINVAL
	}
	return chown(e.UID, e.GID)
}

func (a *applier) warnUnmapped(name string, e *Entry) {
	a.warn(name, "owner %d:%d is not mapped here: recorded for the image, root on disk (a larger range in /etc/subuid and /etc/subgid maps it)", e.UID, e.GID)
}

func ownError(e *Entry, err error) error {
	if err == unix.EPERM {
		return fmt.Errorf("setting owner %d:%d: %w (it takes root, or a user namespace with these ids)", e.UID, e.GID, err)
	}
	return fmt.Errorf("setting owner %d:%d: %w", e.UID, e.GID, err)
}

// ownerAt is owner for what is only reached by its name and cannot carry user xattrs.
func (a *applier) ownerAt(d dirHandle, base, name string, e *Entry) error {
	record := a.o.Ownership == OwnXattr && (e.UID != 0 || e.GID != 0)
	if a.o.Ownership == OwnIDs {
		err := chownKnown(e, func(uid, gid int) error {
			return unix.Fchownat(d.fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		})
		if err == unix.EINVAL {
			a.warnUnmapped(name, e)
			record = true
			err = unix.Fchownat(d.fd, base, a.rootUID(), a.rootGID(), unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return ownError(e, err)
		}
	}
	if record {
		a.owners[name] = Owner{UID: uint32(e.UID), GID: uint32(e.GID)}
	}
	if len(e.Xattrs) > 0 {
		for _, x := range slices.Sorted(maps.Keys(e.Xattrs)) {
			if x != xattrSELinux {
				a.warn(name, "extended attribute %s is not kept on disk", x)
			}
		}
	}
	return nil
}

// xattrs sets the attributes of an open regular file or directory.
func (a *applier) xattrs(fd int, name string, e *Entry) error {
	for _, x := range slices.Sorted(maps.Keys(e.Xattrs)) {
		disk := diskXattr(x)
		v := e.Xattrs[x]
		switch {
		case disk == "" || strings.IndexByte(disk, 0) >= 0 || len(disk) > maxXattrName || disk == xattrCapability && e.Type != tar.TypeReg:
			if x != xattrSELinux {
				a.warn(name, "extended attribute %s is not kept on disk", x)
			}
			continue
		case disk == xattrCapability:
			plain, foreign := plainCapability(v)
			if foreign {
				a.warn(name, "%s belongs to the root of another user namespace: taken as the image's root", x)
			}
			v = plain
		}
		err := unix.Fsetxattr(fd, disk, []byte(v), 0)
		if err == unix.EOPNOTSUPP && disk != xattrCapability {
			a.warn(name, "extended attribute %s is not kept on disk: %v", x, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("setting extended attribute %s: %w%s", x, err, xattrHint(err))
		}
	}
	return nil
}

func (a *applier) symlink(d dirHandle, base, name string, e *Entry) error {
	err := a.inPlace(d, base, name, func() error { return unix.Symlinkat(e.Link, d.fd, base) })
	if err != nil {
		return err
	}
	if err := a.ownerAt(d, base, name, e); err != nil {
		return err
	}
	return lutimes(d.fd, base, timespec(e.ModTime))
}

// special makes a fifo or a device.
func (a *applier) special(d dirHandle, base, name string, e *Entry, kind uint32, dev uint64) error {
	err := a.inPlace(d, base, name, func() error { return unix.Mknodat(d.fd, base, kind|0o600, int(dev)) })
	if err != nil {
		return err
	}
	if err := a.ownerAt(d, base, name, e); err != nil {
		return err
	}
	fd, err := openat(d.fd, base, pathFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind {
		return fmt.Errorf("%w: somebody replaced it", ErrChanged)
	}
	if err := chmodFD(fd, uint32(e.Mode)); err != nil {
		return err
	}
	return lutimes(d.fd, base, timespec(e.ModTime))
}

// device makes a device, or a regular file that stands for it where nobody may make one. 0:0 is
// always the latter: overlayfs takes that device for a deletion.
func (a *applier) device(d dirHandle, base, name string, e *Entry) error {
	kind := uint32(unix.S_IFCHR)
	if e.Type == tar.TypeBlock {
		kind = unix.S_IFBLK
	}
	dev := unix.Mkdev(uint32(e.Major), uint32(e.Minor))
	if a.o.Ownership == OwnIDs && dev != 0 && !a.o.NoDevices {
		err := a.special(d, base, name, e, kind, dev)
		if err != unix.EPERM {
			return err
		}
	}
	a.warn(name, "device %d:%d is a regular file on disk that stands for it", e.Major, e.Minor)
	fd, err := a.create(d, base, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := a.metadata(fd, name, e, Owner{Type: kind, Rdev: dev}); err != nil || a.o.Ownership == OwnXattr || !a.o.Overlay && !a.o.NoDevices {
		return err
	}
	// A snapshot: who runs a step on it has to know that there is one.
	v, err := getXattr(fd, OwnerXattr)
	if err != nil {
		return err
	}
	var rec Owner
	if err := rec.UnmarshalBinary([]byte(v)); err != nil {
		return err
	}
	a.owners[name] = rec
	return nil
}

// dirEntry makes a directory or gives an existing one its metadata.
func (a *applier) dirEntry(d dirHandle, base, name string, e *Entry) error {
	fd := a.root
	if name != "." {
		err := unix.Mkdirat(d.fd, base, 0o700)
		fresh := err == nil
		if err == unix.EEXIST {
			st, serr := fstatat(d.fd, base)
			if serr != nil {
				return serr
			}
			err = nil
			if !isDirMode(st.Mode) {
				// What was here, a deletion too, hid whatever directory is below.
				if err := a.clear(d, base, name); err != nil {
					return err
				}
				if err := unix.Mkdirat(d.fd, base, 0o700); err != nil {
					return err
				}
				fresh = true
				if err := a.setOpaque(d.fd, base); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return err
		}
		if fresh && len(e.Xattrs) == 0 && a.o.Ownership == OwnIDs && e.UID != maxID && e.GID != maxID {
			// The usual case needs no descriptor.
			err := unix.Fchownat(d.fd, base, e.UID, e.GID, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil {
				return a.dirDone(name, e)
			}
			if err != unix.EINVAL {
				return ownError(e, err)
			}
		} else if fresh && len(e.Xattrs) == 0 && a.o.Ownership == OwnXattr && e.UID == 0 && e.GID == 0 {
			return a.dirDone(name, e)
		}
		p, err := openat(d.fd, base, pathFlags|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(p)
		if !fresh {
			if err := chmodFD(p, 0o700); err != nil {
				return err
			}
		}
		if fd, err = openat(p, ".", dirFlags, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	if err := dropXattrs(fd); err != nil {
		return err
	}
	if err := a.owner(fd, name, e, Owner{}); err != nil {
		return err
	}
	if err := a.xattrs(fd, name, e); err != nil {
		return err
	}
	return a.dirDone(name, e)
}

func (a *applier) dirDone(name string, e *Entry) error {
	a.dirs[name] = &dirState{mode: uint32(e.Mode), setMode: true, time: timespec(e.ModTime)}
	a.mark(name)
	return nil
}

// dropXattrs removes what an earlier layer gave a directory.
func dropXattrs(fd int) error {
	names, err := listXattrs(fd, make([]byte, 1024))
	if err != nil {
		return err
	}
	for _, n := range names {
		if n != OwnerXattr && imageXattr(n) == "" {
			continue
		}
		if err := unix.Fremovexattr(fd, n); err != nil && err != unix.ENODATA {
			return fmt.Errorf("removing extended attribute %s: %w", n, err)
		}
	}
	return nil
}

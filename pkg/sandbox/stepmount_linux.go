package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// mount puts one mount of a step at its target inside the rootfs. Mount points that are missing are made, and taken
// away again after the step.
func (st *step) mount(m Mount, stage, n int) error {
	if path.Clean("/"+m.Target) == "/" {
		return fmt.Errorf("%w: the target is the root itself", ErrRootfs)
	}
	if m.Kind == MountTmpfs {
		if err := st.tmpfsMode(&m); err != nil {
			return err
		}
	}
	fd, file, err := st.makeMount(m, stage, n)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	target, err := st.tree.open(m.Target, want{file: file, stub: true})
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: the target is missing and lies in a read-only mount", err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(fd, target)
}

// makeMount makes the mount without attaching it; file says that it is one rather than a directory.
func (st *step) makeMount(m Mount, stage, n int) (fd int, file bool, err error) {
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attrs |= attrRO
	}
	switch m.Kind {
	case MountDir:
		fd, err = bind(unix.AT_FDCWD, m.Source, attrs)
		if err != nil {
			return -1, false, fmt.Errorf("%s: %w", m.Source, err)
		}
		file, err = isFile(fd)
	case MountDevice:
		fd, err = newDevice(m, attrs)
		file = true
	case MountSocket:
		fd, err = st.newSocket(m, attrs)
		file = true
	case MountTmpfs:
		fd, err = st.newTmpfs(m, int(attrs))
	case MountData:
		fd, err = st.newData(m, stage, n)
		file = true
	case MountOverlay:
		fd, err = st.newOverlayMount(m, n, attrs)
		if err == nil {
			file, err = isFile(fd)
		}
	default:
		err = fmt.Errorf("%w: unknown kind of mount", os.ErrInvalid)
	}
	return fd, file, err
}

// newDevice is a mount of a device node, and of nothing that could hold one.
func newDevice(m Mount, attrs uint64) (int, error) {
	fd, err := bind(unix.AT_FDCWD, m.Source, attrs&^unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", m.Source, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFCHR && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		err = fmt.Errorf("%w: it is no device", os.ErrInvalid)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", m.Source, err)
	}
	return fd, nil
}

// newSocket gives the caller's socket its owner and returns a mount of it.
func (st *step) newSocket(m Mount, attrs uint64) (int, error) {
	if err := st.owner(m); err != nil {
		return -1, err
	}
	fd, err := bind(unix.AT_FDCWD, m.Source, attrs)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", m.Source, err)
	}
	if err := unix.Fchownat(fd, "", m.UID, m.GID, unix.AT_EMPTY_PATH); err != nil && (m.UID != 0 || m.GID != 0) {
		unix.Close(fd)
		return -1, fmt.Errorf("owner of %s: %w", m.Source, err)
	}
	return fd, nil
}

func isFile(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT != unix.S_IFDIR, nil
}

// tmpfsMode gives a tmpfs that was asked for without a mode that of the directory it covers, as runc does; else that of /tmp.
func (st *step) tmpfsMode(m *Mount) error {
	if m.Mode != 0 {
		return nil
	}
	before := len(st.tree.stubs)
	target, err := st.tree.open(m.Target, want{stub: true})
	if err != nil {
		return err
	}
	defer unix.Close(target)
	var there unix.Stat_t
	if err := unix.Fstat(target, &there); err != nil {
		return err
	}
	m.Mode = 0o1777
	if len(st.tree.stubs) == before {
		m.Mode = there.Mode & 0o7777
	}
	return nil
}

func (st *step) newTmpfs(m Mount, attrs int) (int, error) {
	if err := st.owner(m); err != nil {
		return -1, err
	}
	opts := []string{"source=tmpfs", "mode=" + strconv.FormatUint(uint64(m.Mode), 8)}
	if (m.UID != 0 || m.GID != 0) && st.super == nil {
		opts = append(opts, "uid="+strconv.Itoa(m.UID), "gid="+strconv.Itoa(m.GID))
	}
	if m.Size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(m.Size, 10))
	}
	fd, err := newMount("tmpfs", attrs, opts...)
	if err == nil {
		err = st.pretend(fd, m)
	}
	return fd, err
}

// owner checks that the owner of a mount exists here.
func (st *step) owner(m Mount) error {
	if st.super != nil && m.UID >= 0 && m.GID >= 0 || int64(m.UID) < st.srv.mapped && int64(m.GID) < st.srv.mapped && m.UID >= 0 && m.GID >= 0 {
		return nil
	}
	mend := "give the user a larger range in /etc/subuid and /etc/subgid"
	if st.srv.mode == ModeSingle {
		mend = mendRanges
	}
	return fmt.Errorf("%w: %d:%d: %s", ErrOwnership, m.UID, m.GID, mend)
}

// pretend has the supervisor show the owner that a mount should have.
func (st *step) pretend(fd int, m Mount) error {
	if st.super == nil || m.UID == 0 && m.GID == 0 {
		return nil
	}
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return err
	}
	st.super.owners.byNode[nodeOf(&s)] = layer.Owner{UID: uint32(m.UID), GID: uint32(m.GID)}
	return nil
}

// newData writes a file into the stage and returns a mount of it.
func (st *step) newData(m Mount, stage, n int) (int, error) {
	if err := st.owner(m); err != nil {
		return -1, err
	}
	name := "data" + strconv.Itoa(n)
	fd, err := unix.Openat(stage, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(m.Data)
	if err == nil && st.super == nil {
		err = unix.Fchown(fd, m.UID, m.GID)
	}
	if err == nil {
		err = st.pretend(fd, m)
	}
	if err == nil {
		err = unix.Fchmod(fd, m.Mode&0o777)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return -1, err
	}
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if m.ReadOnly {
		attrs |= attrRO
	}
	return bind(stage, name, attrs)
}

// newOverlayMount merges lowers and returns a mount of Sub in them. What is written goes to the scratch directory
// and is never looked at.
func (st *step) newOverlayMount(m Mount, n int, attrs uint64) (int, error) {
	dir := filepath.Join(st.Scratch, "mount"+strconv.Itoa(n))
	upper, work, empty := filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "empty")
	at := filepath.Join(st.stage, "mount"+strconv.Itoa(n)) // in memory
	for _, d := range []string{dir, upper, work, empty, at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return -1, err
		}
	}
	if err := plain(upper); err != nil {
		return -1, err
	}
	lowers := m.Lowers
	if len(lowers) == 0 {
		lowers = []string{empty}
	} else if err := copyMeta(lowers[0], upper); err != nil {
		return -1, err
	}
	root, err := mountOverlay(lowers, upper, work, at)
	if err != nil {
		return -1, fmt.Errorf("%w: %w%s", ErrHost, err, mendOverlay(err))
	}
	defer unix.Close(root)
	t, err := newTree(root)
	if err != nil {
		return -1, err
	}
	sub, err := t.find(m.Sub)
	if err != nil {
		return -1, err
	}
	defer unix.Close(sub)
	return bind(sub, "", attrs)
}

// find opens what is at name, following links inside the tree.
func (t *tree) find(name string) (int, error) {
	fd, err := t.open(name, want{exist: true, file: true})
	if errors.Is(err, unix.EISDIR) {
		fd, err = t.open(name, want{exist: true})
	}
	return fd, err
}

// mendOverlay explains why an overlay was refused.
func mendOverlay(err error) string {
	switch {
	case errors.Is(err, unix.ENODEV):
		return ": this kernel has no overlayfs: modprobe overlay"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": overlayfs in user namespaces needs linux 5.11 or later, and no security module against it"
	case errors.Is(err, unix.EINVAL):
		return ": the store may be on a file system that cannot be an upper layer (overlay, NFS): choose another with --root"
	case errors.Is(err, unix.ENOTSUP):
		return ": the store's file system has no user xattrs: choose another with --root"
	}
	return ""
}

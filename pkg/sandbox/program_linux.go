package sandbox

// This file opens the program that agents run from, so that no step can write to it. A step cannot name an agent's
// file: agents are not dumpable and steps have no CAP_SYS_PTRACE. But a step can be made to execute the agent's file
// (its program is /proc/self/exe while it is started, CVE-2019-5736), so the file itself must be out of reach too: of
// root of the agent's user namespace, with all capabilities there, and whatever descriptor it has.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox/ownview"
)

// shield is what keeps an agent's program from being written.
type shield string

const (
	// shieldView: it is seen through a file system of its own that has no upper layer, so that nobody can make it writable:
	// neither root of the machine by a remount (package ownview).
	shieldView shield = "a view that nobody can write through"
	// shieldOwner: it is the file itself, which belongs to an id that does not exist in the agent's namespace, and which
	// its mode lets nobody else write. Capabilities count for files of ids that are mapped only.
	shieldOwner shield = "its owner has no id in the namespaces of steps"
	// shieldSeals: it is a copy in memory, sealed. It costs as much as the rest of an agent's start.
	shieldSeals shield = "a sealed copy"
	// shieldNone: it is the file itself.
	shieldNone shield = ""
)

// program is the file that agents run from.
type program struct {
	*os.File
	shield shield
	err    error // shieldNone: why there is no sealed copy
}

// openProgram opens this program for agents of a plan: the cheapest shield that is to be had. old is what an earlier plan
// used (nil: nothing), and is used again or closed.
func openProgram(pl plan, old *program) (*program, error) {
	if old != nil {
		if old.shield == shieldSeals || old.shield == shieldNone || old.shield == shieldView && !pl.mode.whole() {
			return old, nil
		}
		_ = old.Close() // only read
	}
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("%w: opening this program again: %w: mount /proc", ErrHost, err)
	}
	defer src.Close()
	return guarded(src, pl)
}

// guarded goes down the ladder.
func guarded(src *os.File, pl plan) (*program, error) {
	if ownerGuards(src, pl) {
		return reopened(src, shieldOwner, nil)
	}
	if !pl.mode.whole() {
		if view, err := lockedView(src); err == nil {
			defer view.Close()
			return reopened(view, shieldView, nil)
		}
	}
	mem, err := sealedCopy(src)
	if err != nil {
		return reopened(src, shieldNone, err)
	}
	defer mem.Close()
	return reopened(mem, shieldSeals, nil)
}

// reopened moves a file away from the low numbers, which are given to the agent's own files while it is started.
func reopened(f *os.File, g shield, why error) (*program, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 16)
	if err != nil {
		return nil, fmt.Errorf("opening this program again: %w", err)
	}
	return &program{File: os.NewFile(uintptr(fd), f.Name()), shield: g, err: why}, nil
}

// localFS are the file systems that are known to have the kernel decide by owner and mode; of others a server does.
var localFS = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	unix.TMPFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// ownerGuards reports whether nobody with an id of the plan can write to a file, or change who can. Where a list of
// users may write (an ACL), the group's bit of the mode says so (acl(5), CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE
// PERMISSION BITS).
func ownerGuards(src *os.File, pl plan) bool {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if pl.mode.whole() || unix.Fstat(int(src.Fd()), &st) != nil || unix.Fstatfs(int(src.Fd()), &fs) != nil {
		return false
	}
	const writers, readers = 0o022, 0o005
	if st.Mode&writers != 0 || st.Mode&readers != readers || !slices.Contains(localFS, int64(fs.Type)) {
		return false
	}
	return !slices.ContainsFunc(pl.uids, func(s span) bool {
		return int64(st.Uid) >= s.Outside && int64(st.Uid) < s.Outside+s.Count
	})
}

// lockedView opens a program through a view of its directory, here or with the help of a process that may.
func lockedView(src *os.File) (*os.File, error) {
	view, err := ownview.Open(src)
	if err != nil {
		return sentView(src)
	}
	return view, nil
}

// sealedCopy copies a program into memory, where nobody can write to it again.
func sealedCopy(src *os.File) (_ *os.File, err error) {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	fd, err := unix.MemfdCreate("manifestctl", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before linux 6.3
		fd, err = unix.MemfdCreate("manifestctl", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err // refused (vm.memfd_noexec)
	}
	mem := os.NewFile(uintptr(fd), "manifestctl")
	if err = copyProgram(mem, src); err == nil {
		_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return mem, nil
}

// copyProgram copies all of src in one call, from its pages: half the time of reading and writing it.
func copyProgram(mem, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	if pages, err := unix.Mmap(int(src.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		_, err = mem.Write(pages)
		return errors.Join(err, unix.Munmap(pages))
	}
	_, err = io.Copy(mem, src)
	return err
}

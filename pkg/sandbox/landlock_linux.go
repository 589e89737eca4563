package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// landlockABI is the version of Landlock that this kernel has; 0: none.
func landlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// What the versions of Landlock are about (Documentation/userspace-api/landlock.rst): 2 lets files be renamed and linked between
// directories, which none did before; 6 keeps signals and abstract sockets inside.
const (
	landlockRefer = 2
	landlockScope = 6
)

// landlockFS are the rights on files that a version knows.
func landlockFS(abi int) uint64 {
	rights := uint64(1)<<13 - 1 // up to MAKE_SYM
	for v, right := range map[int]uint64{
		2: unix.LANDLOCK_ACCESS_FS_REFER, 3: unix.LANDLOCK_ACCESS_FS_TRUNCATE, 5: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
	} {
		if abi >= v {
			rights |= right
		}
	}
	return rights
}

// newLandlock makes rules that leave a process the tree at root and nothing else of any file system, and no signal or abstract
// socket of others. 0: this kernel cannot.
func newLandlock(root int) (int, error) {
	abi := landlockABI()
	if abi < landlockRefer {
		return 0, nil
	}
	all := landlockFS(abi)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: all}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= landlockScope {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size = unsafe.Offsetof(attr.Scoped) + unsafe.Sizeof(attr.Scoped)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0) //nolint:gosec // no wrapper
	if errno != 0 {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	// Devices are made by nobody: they would be the host's, as there is no namespace that takes their meaning away.
	beneath := unix.LandlockPathBeneathAttr{
		Allowed_access: all &^ (unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK), Parent_fd: int32(root),
	}
	_, _, errno = unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0) //nolint:gosec // no wrapper
	if errno != 0 {
		unix.Close(int(fd))
		return 0, fmt.Errorf("landlock_add_rule: %w", errno)
	}
	return int(fd), nil
}

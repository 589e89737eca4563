package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// stepCaps is what root of a step may do: the set that containers get by default. CAP_SYS_PTRACE is not in it: with
// that, a step could read the agent through /proc/1.
var stepCaps = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID,
	unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT,
	unix.CAP_MKNOD, unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP,
}

// limitCaps makes what the calling thread executes get stepCaps only. The thread itself keeps what it has: a
// program that root executes gets inheritable and bounding set, not what its parent had.
func limitCaps(without ...uintptr) error {
	keep := map[uintptr]bool{}
	for _, c := range stepCaps {
		keep[c] = !slices.Contains(without, c)
	}
	for c := uintptr(0); c < 64; c++ {
		if keep[c] {
			continue
		}
		// Not [unix.CAP_LAST_CAP]: the kernel may know more than this program.
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break
		} else if on == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EPERM) && slices.Contains(without, unix.CAP_SETPCAP) {
			break // nobody gains any: a confined step has no_new_privs
		} else if err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("dropping ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("dropping inheritable capabilities: %w", err)
	}
	return nil
}

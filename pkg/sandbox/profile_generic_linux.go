//go:build arm64 || riscv64

package sandbox

import "golang.org/x/sys/unix"

// genericProfile is asm-generic's table (include/uapi/asm-generic/unistd.h), which arm64 and riscv64 have.
func genericProfile(arch uint32) profileABI {
	return profileABI{
		arch: arch, socket: unix.SYS_SOCKET, ioctl: unix.SYS_IOCTL,
		deny: []uint32{
			unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
			unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
			unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_SETTIMEOFDAY,
			unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_NFSSERVCTL,
			unix.SYS_LOOKUP_DCOOKIE,
		},
	}
}

//go:build linux

package sandbox

import "golang.org/x/sys/unix"

// profileABIs are the tables of an amd64 kernel: its own, without x32's part of it, and i386's.
var profileABIs = []profileABI{
	{
		arch: unix.AUDIT_ARCH_X86_64, socket: unix.SYS_SOCKET, ioctl: unix.SYS_IOCTL, limit: 0x40000000,
		deny: []uint32{
			unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
			unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
			unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_SETTIMEOFDAY,
			unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_IOPL,
			unix.SYS_IOPERM, unix.SYS_NFSSERVCTL, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_USELIB,
		},
	},
	{
		arch: unix.AUDIT_ARCH_I386, socket: 359, ioctl: 54, // (arch/x86/entry/syscalls/syscall_32.tbl)
		deny: []uint32{
			286, 287, 288, 357, 336, 374, 283, 128, 350, 129, 342, 51, 87, 115, 88, 79, 264, 404, 343, 405, 131, 103, 111, 110, 101, 169,
			253, 86, 25 /* stime */, 113, 166, /* vm86old, vm86 */
		},
	},
}

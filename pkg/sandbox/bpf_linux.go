package sandbox

import "golang.org/x/sys/unix"

// Instructions of classic BPF that a filter needs.
const (
	bpfLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	bpfJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	bpfJset = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	bpfJump = unix.BPF_JMP | unix.BPF_JA
	bpfRet  = unix.BPF_RET | unix.BPF_K
)

// Offsets in struct seccomp_data; the low half of an argument is first on all machines that we know tables of.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// notifyProgram is the filter: the calls of the tables are reported, denied ones do not exist, all others are as they were.
// An execve that a tracer stops at must not be reported as well: the report would be all that happens.
func notifyProgram(abis []abi, traced bool) []unix.SockFilter {
	allow := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW}
	notify := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_USER_NOTIF}
	deny := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	var prog []unix.SockFilter
	for i, a := range abis {
		body := []unix.SockFilter{{Code: bpfLoad, K: dataNr}}
		for _, nr := range a.deny {
			body = append(body, unix.SockFilter{Code: bpfJeq, K: nr, Jf: 1}, deny)
		}
		for _, c := range a.calls {
			if c.op == opExec && traced && i == 0 {
				continue
			}
			if c.when == nil {
				body = append(body, unix.SockFilter{Code: bpfJeq, K: c.nr, Jf: 1}, notify)
				continue
			}
			test := []unix.SockFilter{{Code: bpfLoad, K: dataArgs + 8*uint32(c.when.arg)}}
			if c.when.mask != 0 {
				test = append(test, unix.SockFilter{Code: bpfJset, K: c.when.mask, Jf: 1}, notify)
			}
			for _, v := range c.when.values {
				test = append(test, unix.SockFilter{Code: bpfJeq, K: v, Jf: 1}, notify)
			}
			test = append(test, allow)
			body = append(body, unix.SockFilter{Code: bpfJeq, K: c.nr, Jf: uint8(len(test))})
			body = append(body, test...)
		}
		body = append(body, allow)
		// The body is longer than a conditional jump reaches.
		prog = append(prog, unix.SockFilter{Code: bpfLoad, K: dataArch}, unix.SockFilter{Code: bpfJeq, K: a.arch, Jt: 1}, unix.SockFilter{Code: bpfJump, K: uint32(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, allow)
}

//go:build linux

package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// canTrace says that this machine's registers are known.
const canTrace = true

// regs are a stopped task's registers.
type regs struct{ unix.PtraceRegs }

func (r *regs) get(pid int) error {
	return ptrace(unix.PTRACE_GETREGS, pid, 0, uintptr(unsafe.Pointer(&r.PtraceRegs))) //nolint:gosec // no wrapper takes a thread's registers so
}

func (r *regs) set(pid int) error {
	return ptrace(unix.PTRACE_SETREGS, pid, 0, uintptr(unsafe.Pointer(&r.PtraceRegs))) //nolint:gosec // likewise
}

func (r *regs) nr() uint64 { return r.Orig_rax }

func (r *regs) args() [6]uint64 { return [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9} }

func (r *regs) result() uint64 { return r.Rax }

// atEntry: a call that has not run yet shows ENOSYS as its result.
func (r *regs) atEntry() bool { return int64(r.Rax) == -int64(unix.ENOSYS) }

// callMmap makes the call that the task is about to make one for memory.
func (r *regs) callMmap(size uint64) {
	r.Orig_rax = unix.SYS_MMAP
	r.Rdi, r.Rsi, r.Rdx = 0, size, unix.PROT_READ|unix.PROT_WRITE
	r.R10, r.R8, r.R9 = unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0
}

// callUnlock makes it one that lets a tracer read the task's memory.
func (r *regs) callUnlock() {
	r.Orig_rax = unix.SYS_PRCTL
	r.Rdi, r.Rsi = unix.PR_SET_DUMPABLE, 1
}

// again makes the task make its call once more: the instruction is two bytes long.
func (r *regs) again() {
	r.Rip -= 2
	r.Rax = r.Orig_rax
}

// setExec changes the arguments of execve or execveat.
func (r *regs) setExec(path, argv uint64) {
	if r.Orig_rax == unix.SYS_EXECVEAT {
		r.Rsi, r.Rdx, r.R8 = path, argv, 0
		return
	}
	r.Rdi, r.Rsi = path, argv
}

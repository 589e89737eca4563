package sandbox

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func groups32(groups []int) []uint32 {
	out := make([]uint32, 0, len(groups))
	for _, g := range groups {
		out = append(out, uint32(g))
	}
	return out
}

// start starts the step's process, below the supervisor, the tracer, or both where they are needed, and waits until nothing
// of it is left.
func (st *step) start(file string, files [3]uintptr) (*ExitError, error) {
	attr := forkAttr{files: files, nofile: st.first.nofile, tty: st.Terminal}
	if !st.Insecure {
		attr.profile = st.srv.profile
	}
	var g *guard
	var tr *tracer
	if st.srv.tracing {
		var err error
		if tr, err = st.srv.newTracer(st.super); err != nil {
			return nil, err
		}
		defer tr.close()
		attr.filter, attr.executed = traceProgram(), make(chan error, 1)
	}
	if st.super != nil {
		if err := unix.Fstatfs(st.tree.fd, &st.super.rootfs); err != nil {
			return nil, fmt.Errorf("looking at the rootfs: %w", err)
		}
		attr.slack, attr.flags, attr.listen = firstSlack, superviseFlags, notifyProgram(hostABIs, st.srv.tracing)
	} else {
		attr.cred = st.credential()
	}
	attr.ready = func(pid, listener int, errno syscall.Errno) error {
		if err := st.setLimits(pid); err != nil {
			return err
		}
		var err error
		if g, err = st.watch(pid); err != nil {
			return err
		}
		if st.super != nil {
			if errno != 0 {
				return fmt.Errorf("%w: the supervisor's filter: %w", ErrHost, errno)
			}
			st.super.start(listener)
		}
		if tr != nil {
			return tr.seize(pid)
		}
		return nil
	}
	var pid int
	var err error
	if st.super == nil {
		if st.devices, err = st.superviseDevices(); err != nil {
			return nil, err
		}
	}
	if st.plain() {
		if err := st.confine(); err != nil {
			return nil, err
		}
		pid, err = syscall.ForkExec(file, st.Args, &syscall.ProcAttr{
			Env: st.Env, Files: files[:], Sys: &syscall.SysProcAttr{Setsid: true, Credential: st.credential()},
		})
	} else {
		pid, err = forkExec(file, st.Args, st.Env, attr)
	}
	if err != nil {
		g.stop()
		return st.execError(file, err)
	}
	var status unix.WaitStatus
	if tr != nil {
		if status, err = tr.reap(pid, st.first.killAll); err == nil {
			if execErr := <-attr.executed; execErr != nil {
				return st.execError(file, execErr)
			}
		}
	} else {
		status, err = st.reap(pid)
	}
	limit := g.stop()
	if err != nil {
		return nil, err
	}
	return st.outcomeWithin(status, limit), nil
}

// outcomeWithin is outcome, with what the step was ended for when a limit did it.
func (st *step) outcomeWithin(status unix.WaitStatus, limit string) *ExitError {
	exit := st.outcome(status)
	switch {
	case exit == nil:
	case limit != "":
		exit.Limit = limit
	case st.Resources.Disk > 0 && exit.Signal == "SIGXFSZ":
		exit.Limit = fmt.Sprintf("out of disk: a file grew larger than %s (--disk)", sizeText(st.Resources.Disk))
	}
	return exit
}

// plain reports whether nothing has to be done to the process between its start and its program. Then it comes from a vfork:
// a fork of the agent takes 1 ms.
func (st *step) plain() bool {
	return st.super == nil && !st.srv.tracing && !st.Terminal && st.group < 0 && st.ctl < 0 &&
		st.Resources == (Resources{}) && len(st.Ulimits) == 0 && st.Limits == (Rlimits{})
}

// confine puts this thread under the profile of steps, which its children inherit. What the thread does until it ends with the
// step is not denied.
func (st *step) confine() error {
	if st.Insecure || len(st.srv.profile) == 0 {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(len(st.srv.profile)), Filter: &st.srv.profile[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // no wrapper
	if errno != 0 {
		return fmt.Errorf("%w: the step's seccomp profile: %w", ErrHost, errno)
	}
	return nil
}

// trySupervisor does once what every step will need: a listener (there is one at most in a chain of filters), reading and
// setting the timer slack of another task.
func (s *server) trySupervisor() error {
	if len(hostABIs) == 0 {
		return fmt.Errorf("%w: no table of system calls for %s", ErrHost, runtime.GOARCH)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter ends with the thread
		done <- tryListener()
	}()
	if err := <-done; err != nil {
		return err
	}
	first, err := s.first()
	if err != nil {
		return err
	}
	proc, number := s.proc, decimal
	if proc < 0 {
		proc, number = s.hostProc, translated
	}
	fd, err := unix.Openat(proc, number(uint32(first.pid))+"/timerslack_ns", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: the timer slack of another process: %w", ErrHost, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(strconv.Itoa(baseSlack))); err != nil {
		return fmt.Errorf("%w: the timer slack of another process: %w", ErrHost, err)
	}
	return nil
}

// tryListener gives the calling thread a filter with a listener, which allows everything.
func tryListener() error {
	prog := []unix.SockFilter{{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW}}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, superviseFlags, uintptr(unsafe.Pointer(&fprog))) //nolint:gosec // no wrapper
	if errno != 0 {
		return fmt.Errorf("%w: seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER): %w", ErrHost, errno)
	}
	unix.Close(int(fd))
	return nil
}

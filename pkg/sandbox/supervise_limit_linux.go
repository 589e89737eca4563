package sandbox

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Where there are no namespaces there is no CAP_SYS_NICE, without which another task's timer slack can neither be read nor set. The index of a
// task's ids is then in its soft limit of real-time processor time, which no step that may not become a real-time
// task comes near to, and which children and programs inherit as well. It is the process's: threads have no ids of their own there.

// baseLimit is the limit for the first of all ids, in microseconds: twelve days.
const baseLimit = 1 << 40

func (s *supervisor) limitOf(c *call) int {
	var l unix.Rlimit
	if unix.Prlimit(int(c.n.pid), unix.RLIMIT_RTTIME, nil, &l) != nil || l.Cur < baseLimit || l.Cur-baseLimit > 1<<30 {
		return 0
	}
	return int(l.Cur - baseLimit)
}

func setLimitOf(pid, i int) error {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &l); err != nil {
		return err
	}
	l.Cur = baseLimit + uint64(i)
	return unix.Prlimit(pid, unix.RLIMIT_RTTIME, &l, nil)
}

// newJailSupervisor is newSupervisor for a step without namespaces, whose tree is whole.
func (s *server) newJailSupervisor(j *jail, tree string, first creds) (*supervisor, error) {
	sv := &supervisor{fd: -1, proc: s.hostProc, number: decimal, done: make(chan struct{}), jail: j}
	sv.mem = fileMemory{sv}
	return sv, sv.prepare([]string{tree}, first)
}

// tryJailSupervisor does once what every step will need.
func tryJailSupervisor() error {
	if len(hostABIs) == 0 {
		return fmt.Errorf("%w: no table of system calls for %s", ErrHost, runtime.GOARCH)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter ends with the thread
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- fmt.Errorf("%w: prctl(PR_SET_NO_NEW_PRIVS): %w", ErrHost, err)
			return
		}
		done <- tryListener()
	}()
	if err := <-done; err != nil {
		return err
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_RTTIME, &l); err != nil || l.Max < baseLimit<<1 {
		return fmt.Errorf("%w: the limit of real-time processor time is taken: ulimit -R unlimited", ErrHost)
	}
	return nil
}

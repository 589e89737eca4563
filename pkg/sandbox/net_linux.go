package sandbox

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// enterNet moves the calling thread into a network namespace with only a loopback interface. Making one costs more
// than the rest of a step, and ending one keeps the kernel busy, so it serves again when it is as good as new.
func (s *server) enterNet() error {
	if s.net >= 0 {
		if err := unix.Setns(s.net, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%w: entering a network namespace: %w", ErrHost, err)
		}
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: making a network namespace: %w", ErrHost, err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("%w: setting the loopback interface up: %w", ErrHost, err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: the network namespace: %w", ErrHost, err)
	}
	s.net = fd
	return nil
}

// leaveNet looks at what the step left in the network namespace of the calling thread. Its processes are gone, and
// steps have no right to change interfaces or rules; what can stay is the memory of closed connections, which keeps
// their ports.
func (s *server) leaveNet() {
	if s.net < 0 {
		return
	}
	stat, err := os.ReadFile("/proc/thread-self/net/sockstat")
	if err == nil && unused(string(stat)) {
		return
	}
	unix.Close(s.net)
	s.net = -1
}

// unused reports whether sockstat knows of no socket of any protocol.
func unused(sockstat string) bool {
	for line := range strings.Lines(sockstat) {
		f := strings.Fields(line)
		for i := 1; i+1 < len(f); i += 2 {
			switch f[i] {
			case "inuse", "orphan", "tw":
				if f[i+1] != "0" {
					return false
				}
			}
		}
	}
	return strings.HasPrefix(sockstat, "sockets:")
}

// loopbackUp sets lo of the calling thread's network namespace up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

package sandbox

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// resources are the limits of a process by the names that docker gives them.
var resources = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE,
	"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// setLimits sets the limits of a process. Limits of the agent itself could not be raised again.
func (st *step) setLimits(pid int) error {
	all := slices.Clone(st.Ulimits)
	if n := st.Limits.Files; n > 0 {
		all = append(all, Ulimit{"nofile", int64(n), int64(n)})
	}
	for _, l := range all {
		name := strings.ToLower(l.Name)
		res, ok := resources[name]
		if !ok {
			return fmt.Errorf("unknown limit %q", l.Name)
		}
		lim := unix.Rlimit{Cur: limitOf(l.Soft), Max: limitOf(l.Hard)}
		if err := unix.Prlimit(pid, res, &lim, nil); err != nil {
			return fmt.Errorf("%w: limiting %s to %d:%d: %w: more than this user may have (ulimit -H)", ErrHost, name, l.Soft, l.Hard, err)
		}
	}
	return nil
}

func limitOf(n int64) uint64 {
	if n < 0 {
		return ^uint64(0)
	}
	return uint64(n)
}

// withoutLoopback takes name servers out of a resolv.conf that are not there in a network namespace of its own.
func withoutLoopback(conf []byte) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(conf)) {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == "nameserver" && (strings.HasPrefix(f[1], "127.") || f[1] == "::1") {
			continue
		}
		out.WriteString(line)
	}
	return []byte(out.String())
}

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapIDs maps the ids of an agent that was started without a map. apart says that /proc has other numbers of processes than
// we; then pidfd is the agent's, and is closed here.
func (pl plan) mapIDs(ctx context.Context, pid int, apart bool, pidfd int) error {
	switch {
	case apart && pidfd < 0:
		return fmt.Errorf("%w: /proc is of another pid namespace, and this kernel has no pidfds: mount one of this namespace (unshare --mount-proc)", ErrHost)
	case apart:
		defer unix.Close(pidfd)
		var err error
		if pid, err = procPID(pidfd); err != nil {
			return err
		}
	case pl.uidTool == "":
		return nil // it was started with it
	}
	if pl.uidTool == "" {
		return pl.writeMaps(pid)
	}
	if err := runMap(ctx, pl.uidTool, toolArgs(pid, pl.uids)); err != nil {
		return err
	}
	return runMap(ctx, pl.gidTool, toolArgs(pid, pl.gids))
}

// runMap runs newuidmap or newgidmap.
func runMap(ctx context.Context, tool string, args []string) error {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s: %w: %s", ErrHost, tool, err, bytes.TrimSpace(out))
	}
	return nil
}

// writeMaps writes the maps of the process that /proc calls pid (user_namespaces(7)).
func (pl plan) writeMaps(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	write := func(name, text string) error {
		err := os.WriteFile(dir+name, []byte(text), 0)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return fmt.Errorf("%w: mapping ids: %w: %s", ErrHost, err, mendUserns(errno))
		}
		return err
	}
	if err := write("uid_map", mapText(pl.uids)); err != nil {
		return err
	}
	if pl.mode != ModeRoot {
		if err := write("setgroups", "deny"); err != nil {
			return err
		}
	}
	return write("gid_map", mapText(pl.gids))
}

// mapText is a map as uid_map takes it.
func mapText(m []span) string {
	var b strings.Builder
	for _, s := range m {
		fmt.Fprintln(&b, s.Inside, s.Outside, s.Count)
	}
	return b.String()
}

// sameProc reports whether /proc is of our pid namespace.
func sameProc() bool {
	self, err := os.Readlink("/proc/self")
	return err != nil || self == strconv.Itoa(os.Getpid())
}

// procPID is the number that /proc has for the process of a pidfd.
func procPID(pidfd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, fmt.Errorf("%w: /proc is of another pid namespace: %w", ErrHost, err)
	}
	for line := range strings.Lines(string(info)) {
		if text, ok := strings.CutPrefix(line, "Pid:"); ok {
			if pid, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && pid > 0 {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: /proc does not show our children: mount one of this pid namespace (unshare --mount-proc)", ErrHost)
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// resolve opens a name as a task of a step without namespaces would: its root is ours meanwhile.
func (j *jail) resolve(s *supervisor, c *call, dir int, name string, flags uint64) (int, error) {
	if !strings.HasPrefix(name, "/") {
		// Its text has no links, so what follows is walked as from the directory itself.
		base, err := s.linkOf(c, c.base(dir))
		if err != nil {
			return -1, err
		}
		if !strings.HasPrefix(base, "/") {
			return -1, errNotOurs
		}
		name = base + "/" + name
	}
	return openat2(j.view, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// openOf opens a file of the task's directory in /proc, O_PATH.
func (s *supervisor) openOf(c *call, name string) (fd int, err error) {
	if s.jail == nil {
		return unix.Openat(s.proc, name, pathOnly, 0)
	}
	err = s.asTask(c, func() error {
		fd, err = unix.Openat(s.proc, name, pathOnly, 0)
		return err
	})
	return fd, err
}

// linkOf reads a link of the task's directory in /proc.
func (s *supervisor) linkOf(c *call, name string) (text string, err error) {
	err = s.asTask(c, func() error {
		text, err = readlinkAt(s.proc, name)
		return err
	})
	return text, err
}

// asTask does something with the ids of a task for files, where they are others than ours: without CAP_SYS_PTRACE the kernel
// shows what belongs to a task only to its own user. The calling thread is locked.
func (s *supervisor) asTask(c *call, do func() error) error {
	uid, gid, ok := s.idsOf(c)
	if !ok || uid == 0 && gid == 0 {
		return do()
	}
	if _, err := unix.SetfsgidRetGid(int(gid)); err != nil {
		return err
	}
	defer func() { _, _ = unix.SetfsgidRetGid(0) }()
	if _, err := unix.SetfsuidRetUid(int(uid)); err != nil {
		return err
	}
	defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	return do()
}

// idsOf reads the effective ids of a task, which everybody may.
func (s *supervisor) idsOf(c *call) (uid, gid uint32, ok bool) {
	found := 0
	for line := range strings.Lines(string(readFileAt(s.proc, c.tid+"/status"))) {
		key, rest, _ := strings.Cut(line, ":")
		if key != "Uid" && key != "Gid" {
			continue
		}
		f := strings.Fields(rest)
		if len(f) != 4 {
			return 0, 0, false
		}
		id, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil {
			return 0, 0, false
		}
		if found++; key == "Uid" {
			uid = uint32(id)
		} else {
			gid = uint32(id)
		}
	}
	return uid, gid, found == 2
}

// newJailTracer makes the tracer of a step without namespaces.
func (s *server) newJailTracer(j *jail) *tracer {
	files := &supervisor{fd: -1, proc: s.hostProc, number: decimal, mem: stoppedMemory{}, jail: j}
	return &tracer{files: files, emulators: s.emulators, pending: map[int]*rewrite{}, unlocked: map[int]bool{}}
}

// ownExe says which program an execve of /proc/self/exe means, where there is no /proc.
func (t *tracer) ownExe(c *call) (string, bool) {
	if t.files.jail == nil {
		return "", false
	}
	name, err := t.files.readString(c, c.args[c.path], unix.PathMax)
	if err != nil || name != "/proc/self/exe" && name != "/proc/thread-self/exe" && name != "/proc/"+c.tid+"/exe" {
		return "", false
	}
	target, err := t.files.linkOf(c, c.tid+"/exe")
	if err != nil || !strings.HasPrefix(target, "/") || t.isEmulator(target) {
		return "", false
	}
	return target, true
}

// isEmulator reports whether a program is one that was put in for others.
func (t *tracer) isEmulator(name string) bool {
	return slices.ContainsFunc(t.emulators, func(e emulator) bool { return e.inRootfs() == name })
}

// reapFamily runs a step until its first process ends, then ends all that descends from it. Nothing else is ever a child of this
// process. traced says that they are all seized.
func (t *tracer) reapFamily(first int, traced bool) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return status, fmt.Errorf("waiting for the step: %w", err)
		}
		if ws.Stopped() {
			t.stopped(pid, ws)
			continue
		}
		t.forget(pid)
		if pid == first {
			return ws, t.endFamily(traced)
		}
	}
}

// endFamily kills what a step left. There is no pid namespace, so no signal reaches all of it at once, and kill(-1) would reach
// others: but a task that is killed has its children become ours, and one that a tracer stops at its birth stays stopped.
func (t *tracer) endFamily(traced bool) error {
	for {
		if err := t.killChildren(); err != nil {
			return err
		}
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("reaping what a step left: %w", err)
			}
			if pid <= 0 {
				break
			}
			if traced && ws.Stopped() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// killChildren kills the children of this process.
func (t *tracer) killChildren() error {
	names, err := namesIn(t.files.proc)
	if err != nil {
		return fmt.Errorf("looking for what a step left: %w", err)
	}
	self := strconv.Itoa(unix.Getpid())
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 {
			continue
		}
		if parentOf(t.files.proc, name) == self {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// family are the status files of all that descends from this process, in the /proc that is open as proc.
func family(proc int) ([][]byte, error) {
	names, err := namesIn(proc)
	if err != nil {
		return nil, err
	}
	type process struct {
		parent string
		status []byte
	}
	all := map[string]process{}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		if status := readFileAt(proc, name+"/status"); status != nil {
			all[name] = process{strconv.FormatInt(field(status, "PPid:"), 10), status}
		}
	}
	self := strconv.Itoa(unix.Getpid())
	var out [][]byte
	for _, p := range all {
		for up, n := p.parent, 0; n < len(all); n++ {
			if up == self {
				out = append(out, p.status)
				break
			}
			above, ok := all[up]
			if !ok {
				break
			}
			up = above.parent
		}
	}
	return out, nil
}

// namesIn lists a directory.
func namesIn(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), "proc")
	defer d.Close()
	return d.Readdirnames(-1)
}

// readFileAt reads the first page of a file of /proc; nil when it cannot be read.
func readFileAt(dir int, name string) []byte {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil || n <= 0 {
		return nil
	}
	return b[:n]
}

// parentOf is the parent of a process, as /proc/PID/stat has it: behind the name, which may have parentheses in it.
func parentOf(proc int, pid string) string {
	text := string(readFileAt(proc, pid+"/stat"))
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

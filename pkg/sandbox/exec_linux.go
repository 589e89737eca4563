package sandbox

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// defaultPath is where programs are looked for when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Exit codes for what could not be started, as a shell and docker give them.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// process runs in the rootfs, on the step's thread: it starts the process and waits until nothing of it is left.
func (st *step) process() (*ExitError, error) {
	if err := st.chdir(); err != nil {
		return nil, err
	}
	file, exit := lookPath(st.Args[0], st.Env)
	if exit != nil {
		return exit, nil
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the step's /dev/null: %w", err)
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	if st.in >= 0 {
		files[0] = uintptr(st.in)
	}
	if st.Terminal {
		tty, err := st.openTerminal()
		if err != nil {
			return nil, err
		}
		defer unix.Close(tty)
		files = []uintptr{uintptr(tty), uintptr(tty), uintptr(tty)}
	}
	for i, fd := range st.out {
		if fd < 0 || st.Terminal {
			continue
		}
		files[i+1] = uintptr(fd)
		if st.Account.UID != 0 || st.Account.GID != 0 {
			// So that the step's user can open /dev/stdout.
			_ = unix.Fchown(fd, st.Account.UID, st.Account.GID)
		}
	}
	// An anonymous session keyring: keys of the caller's session stay out of reach. Where keyctl is refused (a
	// container's seccomp profile), it is refused to the step as well.
	_, err = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("making a session keyring: %w", err)
	}
	if !st.Insecure {
		var without []uintptr
		if st.jail != nil {
			without = notConfined
		}
		if err := limitCaps(without...); err != nil {
			return nil, err
		}
	}
	if st.jail != nil {
		return st.confined(file, [3]uintptr(files))
	}
	return st.start(file, [3]uintptr(files))
}

// outcome is how the process ended, nil for success.
func (st *step) outcome(ws unix.WaitStatus) *ExitError {
	if len(st.OKCodes) > 0 && !ws.Signaled() {
		if slices.Contains(st.OKCodes, ws.ExitStatus()) {
			return nil
		}
		return &ExitError{Code: ws.ExitStatus()}
	}
	return exitOf(ws)
}

// credential is who the step's process is, where ids are real; nil: root, as its parent.
func (st *step) credential() *syscall.Credential {
	if st.Account.UID == 0 && st.Account.GID == 0 && (len(st.Account.Groups) == 0 || st.srv.single) {
		return nil
	}
	return &syscall.Credential{Uid: uint32(st.Account.UID), Gid: uint32(st.Account.GID), Groups: groups32(st.Account.Groups)}
}

// chdir goes to the working directory, which is made (for the step's user) when it is missing.
func (st *step) chdir() error {
	cwd := st.Cwd
	if cwd == "" {
		cwd = "/"
	}
	fd, err := st.tree.open(cwd, want{uid: st.Account.UID, gid: st.Account.GID})
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		return fmt.Errorf("working directory %s: %w", cwd, err)
	}
	// A directory that is not below our root has no name here.
	buf := make([]byte, unix.PathMax)
	if n, err := unix.Getcwd(buf); err != nil || n == 0 || buf[0] != '/' {
		return fmt.Errorf("working directory %s: %w: it has no name in the rootfs", cwd, ErrRootfs)
	}
	return nil
}

// reap waits for pid, then has all else killed that the step started. Everything in the pid namespace is the step's,
// since there is one step at a time.
func (st *step) reap(pid int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return status, fmt.Errorf("waiting for the step: %w", err)
		}
	}
	return status, st.first.killAll()
}

func exitOf(ws unix.WaitStatus) *ExitError {
	switch {
	case ws.Signaled():
		return &ExitError{Code: 128 + int(ws.Signal()), Signal: unix.SignalName(ws.Signal())}
	case ws.ExitStatus() != 0:
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// lookPath finds a program as a shell in the rootfs would.
func lookPath(name string, env []string) (string, *ExitError) {
	if strings.Contains(name, "/") {
		return name, runnable(name)
	}
	path := defaultPath
	for _, kv := range env { // the last one counts
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var denied *ExitError
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		file := filepath.Join(dir, name)
		if !strings.Contains(file, "/") {
			file = "./" + file
		}
		exit := runnable(file)
		if exit == nil {
			return file, nil
		}
		if exit.Code == codeNotExecutable && denied == nil {
			denied = exit
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &ExitError{Code: codeNotFound, Reason: fmt.Sprintf("%q not found in PATH=%s", name, path)}
}

func runnable(file string) *ExitError {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &ExitError{Code: codeNotFound, Reason: fmt.Sprintf("%s: no such file", file)}
	case err != nil:
		return &ExitError{Code: codeNotExecutable, Reason: fmt.Sprintf("%s: %v", file, err)}
	case st.IsDir():
		return &ExitError{Code: codeNotExecutable, Reason: fmt.Sprintf("%s: is a directory", file)}
	case st.Mode()&0o111 == 0:
		return &ExitError{Code: codeNotExecutable, Reason: fmt.Sprintf("%s: permission denied: not executable", file)}
	}
	return nil
}

// execError says why the kernel did not execute file.
func (st *step) execError(file string, err error) (*ExitError, error) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil, fmt.Errorf("starting %s: %w", file, err)
	}
	interp, arch := inspect(file)
	switch errno {
	case unix.ENOEXEC:
		if arch != "" && arch != runtime.GOARCH {
			return nil, fmt.Errorf("%w for %s (%s is a program of it): install qemu-user-static, or name one with --emulator %s=PATH",
				emulate.ErrNoEmulator, arch, file, arch)
		}
		return &ExitError{Code: codeNotExecutable, Reason: file + ": exec format error: neither a program nor a script with #!"}, nil
	case unix.ENOENT:
		reason := file + ": no such file"
		if interp != "" {
			reason = fmt.Sprintf("%s: its interpreter %s is not in the rootfs", file, interp)
		}
		return &ExitError{Code: codeNotFound, Reason: reason}, nil
	case unix.EACCES, unix.EPERM, unix.ELOOP, unix.E2BIG, unix.EINVAL, unix.ETXTBSY, unix.ELIBBAD, unix.EISDIR:
		return &ExitError{Code: codeNotExecutable, Reason: fmt.Sprintf("%s: %v", file, errno)}, nil
	}
	return nil, fmt.Errorf("starting %s: %w", file, errno)
}

// inspect reads what a program needs: its interpreter, and the architecture of the ELF file that would be executed
// in the end.
func inspect(file string) (interp, arch string) {
	for range 4 { // as many scripts deep as the kernel goes
		f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return interp, ""
		}
		head := make([]byte, 64)
		n, _ := io.ReadFull(f, head)
		head = head[:n]
		if bytes.HasPrefix(head, []byte("#!")) {
			_, _ = f.Seek(2, io.SeekStart)
			line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
			f.Close()
			fields := strings.Fields(line)
			if len(fields) == 0 {
				return interp, ""
			}
			interp, file = fields[0], fields[0]
			continue
		}
		arch, _ = emulate.ArchOfELF(head)
		if e, err := elf.NewFile(f); err == nil {
			for _, p := range e.Progs {
				if p.Type == elf.PT_INTERP && p.Filesz < unix.PathMax {
					b := make([]byte, p.Filesz)
					if _, err := p.ReadAt(b, 0); err == nil {
						interp = strings.TrimRight(string(b), "\x00")
					}
				}
			}
		}
		f.Close()
		return interp, arch
	}
	return interp, ""
}

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const shellSpec = `version: 1
from: scratch
steps:
  - files:
      - {path: /bin/busybox, source: busybox, mode: "0755"}
      - {path: /bin/sh, type: symlink, target: busybox}
  - run: /bin/busybox --install -s /bin
config: {cmd: [/bin/sh], env: {PS1: "ready> "}}
`

const brokenSpec = `version: 1
from: scratch
steps:
  - files:
      - {path: /bin/busybox, source: busybox, mode: "0755"}
      - {path: /bin/sh, type: symlink, target: busybox}
  - run: /bin/busybox --install -s /bin
  - run: echo what is left > /left; exit 7
    workdir: /srv
    env: {WORD: "of the step", PS1: "ready> "}
`

// play is manifestctl on a terminal.
type play struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	slave  *os.File

	mu   sync.Mutex // guards text
	text string
	more chan struct{}
}

// onTerminal starts a command line on a new terminal of the given size.
func onTerminal(t *testing.T, cols, rows uint16, args ...string) *play {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	p := &play{t: t, master: os.NewFile(uintptr(fd), "master"), more: make(chan struct{}, 1)}
	p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	p.resize(cols, rows)
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), "TERM=dumb")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, p.cmd.Start())
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := p.master.Read(buf)
			p.mu.Lock()
			p.text += string(buf[:n])
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		p.slave.Close()
		p.master.Close()
	})
	return p
}

func (p *play) resize(cols, rows uint16) {
	p.t.Helper()
	require.NoError(p.t, p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	}))
}

func (p *play) control(f func(fd int) error) error {
	conn, err := p.master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// modes are the terminal's.
func (p *play) modes() (m unix.Termios) {
	p.t.Helper()
	got, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	require.NoError(p.t, err)
	return *got
}

// types waits for a text, and types.
func (p *play) types(wait, text string) {
	p.t.Helper()
	p.shows(wait)
	p.mu.Lock()
	p.text = ""
	p.mu.Unlock()
	_, err := p.master.WriteString(text)
	require.NoError(p.t, err)
}

func (p *play) shows(text string) {
	p.t.Helper()
	for end := time.After(2 * time.Minute); ; {
		p.mu.Lock()
		shown := p.text
		p.mu.Unlock()
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-p.more:
		case <-end:
			p.t.Fatalf("never showed %q: %q", text, shown)
		}
	}
}

func (p *play) exits(code int) {
	p.t.Helper()
	err := p.cmd.Wait()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		require.NoError(p.t, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.Equal(p.t, code, got, "%s", p.text)
}

// shellBox is a store with an image of busybox, store:box:1.
func shellBox(t *testing.T, spec string) (dir, root string) {
	t.Helper()
	busybox, err := staticBusybox()
	if err != nil || !canRunSteps() {
		t.Skipf("this host cannot run the step: user namespaces %v, busybox %v", canRunSteps(), err)
	}
	dir = t.TempDir()
	data, err := os.ReadFile(busybox)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "busybox"), data, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec), 0o600))
	return dir, filepath.Join(dir, "store")
}

func boxImage(t *testing.T) (root string) {
	t.Helper()
	dir, root := shellBox(t, shellSpec)
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	out, err := exec.Command(path, "--root", root, "build", "-q", "-t", "box:1", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return root
}

// executors are those that make terminals in ways of their own.
func executors() []string {
	if os.Geteuid() != 0 {
		return []string{"auto"}
	}
	return []string{"auto", "chroot"}
}

// TestRunTerminal: a program gets a terminal of its own where run has one: size, signals of keys, exit code; the caller's is
// as it was afterwards.
func TestRunTerminal(t *testing.T) {
	root := boxImage(t)
	for _, executor := range executors() {
		t.Run(executor, func(t *testing.T) {
			p := onTerminal(t, 91, 31, "--root", root, "run", "--executor", executor, "store:box:1", "/bin/sh", "-i")
			before := p.modes()
			p.types("ready> ", "tty | sed 's,/[0-9]*$,/N,'; stty size; ls -ld /proc/self/fd/0 | wc -l\r")
			p.shows("/dev/pts/N\r\n31 91\r\n1\r\n")
			assert.NotEqual(t, before.Lflag, p.modes().Lflag, "raw while it runs")
			p.resize(80, 25)
			p.types("ready> ", "until stty size | grep -q ^25; do sleep 0.1; done; stty size\r")
			p.types("25 80", "(echo began as $((7 * 6)); exec sleep 1000) || true; echo went on\r")
			p.types("began as 42", "\x03") // the shell reads no line now, which would take the key for a part of it
			p.types("ready> ", "exit 5\r")
			p.exits(5)
			assert.Equal(t, before, p.modes(), "as it was")
		})
	}
}

// TestRunSignals: a signal is the program's to act on, and its exit code stays its own.
func TestRunSignals(t *testing.T) {
	root := boxImage(t)
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	for name, sig := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(path, "--root", root, "run", "store:box:1", "/bin/sh", "-c",
				"trap 'echo got "+name+"; exit 9' "+name+"; echo ready; while :; do sleep 0.05; done")
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			buf := make([]byte, 256)
			n, err := out.Read(buf)
			require.NoError(t, err)
			require.Equal(t, "ready\n", string(buf[:n]))
			require.NoError(t, cmd.Process.Signal(sig))
			n, err = out.Read(buf)
			require.NoError(t, err)
			assert.Equal(t, "got "+name+"\n", string(buf[:n]))
			err = cmd.Wait()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 9, exit.ExitCode())
		})
	}
	t.Run("twice", func(t *testing.T) {
		// It leaves its scratch, which may be another id's; the next to use the sandbox removes it.
		t.Cleanup(func() {
			out, err := exec.Command(path, "--root", root, "store", "gc", "--cache").CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
		cmd := exec.Command(path, "--root", root, "run", "store:box:1", "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		buf := make([]byte, 256)
		_, err = out.Read(buf)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		var exit *exec.ExitError
		for {
			if err := cmd.Process.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) { // it may have ended since
				require.NoError(t, err)
			}
			select {
			case err := <-done:
				require.ErrorAs(t, err, &exit)
				assert.Equal(t, exitTerminated, exit.ExitCode())
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
	})
}

// TestOnErrorShell: a failed step can be looked at, as it is for the step.
func TestOnErrorShell(t *testing.T) {
	for _, executor := range executors() {
		t.Run(executor, func(t *testing.T) {
			dir, root := shellBox(t, brokenSpec)
			p := onTerminal(t, 80, 25, "--root", root, "build", "--executor", executor, "--on-error", "shell", dir)
			before := p.modes()
			p.types("ready> ", "cat /left; echo word: $WORD; pwd; tty | sed 's,/[0-9]*$,/N,'; stty size\r")
			p.shows("what is left\r\nword: of the step\r\n/srv\r\n/dev/pts/N\r\n25 80\r\n")
			p.types("ready> ", "echo changed > /left; exit 1\r")
			p.shows("exit code 7")
			p.exits(exitStep)
			assert.Equal(t, before, p.modes(), "as it was")
			left, err := filepath.Glob(filepath.Join(root, "snapshots", "*", "tmp-*"))
			require.NoError(t, err)
			assert.Empty(t, left, "nothing of it is left")
		})
	}
}

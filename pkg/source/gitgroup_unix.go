//go:build unix

package source

import (
	"os/exec"
	"syscall"
)

// restrictGit puts git into a process group of its own, which ends with the build.
func restrictGit(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

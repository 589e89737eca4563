package emulate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

func uname() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// kernel is the release of the running kernel, "6.9.0-1-amd64".
func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// probeTimeout bounds a program of three instructions. What is decided by it is too much to be decided by a machine that does
// something else for a moment.
const probeTimeout = 20 * time.Second

// runsELF executes a tiny program from memory and reports whether it ended with 0.
func runsELF(program []byte) bool {
	fd, err := unix.MemfdCreate("manifestctl-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	if _, err := f.Write(program); err != nil {
		return false
	}
	// A file that is open for writing cannot be executed: go through a read-only descriptor of it.
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	defer ro.Close()
	if f.Close() != nil {
		return false
	}
	// Asked once in the life of a process: no caller's context may decide the answer for all.
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout) //nolint:forbidigo // see above
	defer cancel()
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", ro.Fd()))
	cmd.Env = []string{}
	err = cmd.Run()
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return false // programs in memory are refused here (vm.memfd_noexec); an emulator is then the safe choice
	}
	return err == nil
}

// identity is a text that is another one when the file is: what is written to it or put in its place has another time of
// change, which nobody can set.
func identity(path string) (string, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return "", false
	}
	return fmt.Sprintf("%s %d:%d %d %d.%09d", path, st.Dev, st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec), true
}

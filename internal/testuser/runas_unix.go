//go:build unix

package testuser

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// RunAs runs this test again, in a process of v's user, and fails if it fails there. args are further flags for the
// test binary. HOME and TMPDIR of the process are directories of that user; it has no variables but these, PATH and
// what [Variants] and [Shared] need.
func RunAs(t *testing.T, v Variant, args ...string) {
	t.Helper()
	u := ensure(t, v)
	home := userDir(t, u)
	shareOnce.Lock()
	base := shared(t)
	binary := filepath.Join(base, "test.bin")
	if _, err := os.Stat(binary); err != nil {
		copyBinary(t, binary)
	}
	shareOnce.Unlock()

	argv := []string{"-test.run=" + pattern(t.Name()), "-test.count=1", "-test.v=true"}
	if testing.Short() {
		argv = append(argv, "-test.short")
	}
	if deadline, ok := t.Deadline(); ok {
		argv = append(argv, "-test.timeout="+timeUntil(deadline).String())
	}
	cmd := exec.CommandContext(t.Context(), binary, append(argv, args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + filepath.Join(home, "tmp"), "USER=" + u.name,
		variantEnv + "=" + v.Name, sharedEnv + "=" + base,
	}
	cmd.Dir = home
	if wd, err := os.Getwd(); err == nil && reachable(wd) {
		cmd.Dir = wd // for testdata
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("as user %s: %v\n%s", u.name, err, out)
	case strings.Contains(string(out), "no tests to run"):
		t.Errorf("as user %s: no test matched %s", u.name, pattern(t.Name()))
	case testing.Verbose():
		t.Logf("as user %s:\n%s", u.name, out)
	}
}

// pattern matches one test and its subtests.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

func copyBinary(t *testing.T, to string) {
	t.Helper()
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		exe, err2 := os.Executable()
		if err2 != nil {
			t.Fatal(err2)
		}
		if src, err = os.Open(exe); err != nil {
			t.Fatal(err)
		}
	}
	defer src.Close()
	dst, err := os.OpenFile(to+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755) //nolint:gosec // for the other users
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".tmp", to); err != nil {
		t.Fatal(err)
	}
}

// userDir makes a home of u with tmp in it; it is removed after the test.
func userDir(t *testing.T, u account) string {
	t.Helper()
	home, err := os.MkdirTemp(tempDir(), "manifestctl-home-") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, home) })
	tmp := filepath.Join(home, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{tmp, home} {
		if err := os.Chown(d, int(u.uid), int(u.gid)); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// removeAll removes what a test left; entries may belong to anybody.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("removing %s: %v", dir, err)
	}
}

// account is a user of this machine.
type account struct {
	name     string
	uid, gid uint32
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

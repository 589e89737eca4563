//go:build unix

package testuser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func timeUntil(t time.Time) time.Duration { return time.Until(t).Round(time.Second) }

// ensure returns v's account, made when it is missing. Test binaries of several packages do this at the same time.
func ensure(t *testing.T, v Variant) account {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join("/tmp", ".manifestctl-testuser.lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := user.Lookup(v.user); err != nil {
		args := []string{"--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", v.user}
		if err := run(t.Context(), "useradd", args...); err != nil {
			t.Fatalf("making the test user %s: %v: install passwd", v.user, err)
		}
	}
	u, err := user.Lookup(v.user)
	if err != nil {
		t.Fatalf("the test user %s: %v", v.user, err)
	}
	a := account{name: v.user}
	if a.uid, err = parseID(u.Uid); err != nil {
		t.Fatal(err)
	}
	if a.gid, err = parseID(u.Gid); err != nil {
		t.Fatal(err)
	}
	if v.user == rangesUser {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			t.Fatalf("the variant %q needs newuidmap: install uidmap", v.Name)
		}
		for _, kind := range []string{"uid", "gid"} {
			giveRange(t, v.user, kind)
		}
	}
	return a
}

// giveRange adds 65536 subordinate ids behind the last that anybody has.
func giveRange(t *testing.T, name, kind string) {
	t.Helper()
	const count, first = 65536, 100000
	data, err := os.ReadFile("/etc/sub" + kind)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	next := uint64(first)
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		if f[0] == name {
			return
		}
		start, err1 := parseID(f[1])
		n, err2 := parseID(f[2])
		if err1 == nil && err2 == nil {
			next = max(next, uint64(start)+uint64(n))
		}
	}
	arg := fmt.Sprintf("%d-%d", next, next+count-1)
	if err := run(t.Context(), "usermod", "--add-sub"+kind+"s", arg, name); err != nil {
		t.Fatalf("giving %s a range of sub%ss: %v", name, kind, err)
	}
}

// run retries for a while: the account files may be locked by somebody else.
func run(ctx context.Context, name string, args ...string) error {
	for try := 0; ; try++ {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err == nil {
			return nil
		}
		if try == 600 || !bytes.Contains(out, []byte("lock")) {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

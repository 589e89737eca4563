// Package testuser runs tests again as ordinary users. A suite that runs as root (in CI) proves nothing about
// rootless operation; this package drops to a user with subordinate ids and to one without, and runs the same
// test of the same binary there.
//
// It changes the machine in one way: as root it adds the two users, once, with useradd.
//
//	func TestRun(t *testing.T) {
//		testuser.Each(t, func(t *testing.T) { ... }) // TestRun/root, TestRun/ranges, TestRun/single
//	}
package testuser

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Variant is a kind of user that a test runs as.
type Variant struct {
	Name    string // "root", "ranges", "single", or "user" when the whole suite runs as an ordinary one
	Current bool   // this process is it

	user string // name in /etc/passwd; "" for this process's user
}

// The users, and variables that a process which was started as one of them gets.
const (
	rangesUser = "mctl-ranges" // has ranges in /etc/subuid and /etc/subgid
	singleUser = "mctl-single" // has none

	variantEnv = "MANIFESTCTL_TEST_VARIANT"
	sharedEnv  = "MANIFESTCTL_TEST_SHARED"
)

// Variants returns the users to run a test as. As root: root itself, a user with ranges and one without; in a process
// started by [RunAs], or as an ordinary user: that user only.
func Variants(t testing.TB) []Variant {
	t.Helper()
	if name := os.Getenv(variantEnv); name != "" {
		return []Variant{{Name: name, Current: true}}
	}
	if os.Geteuid() != 0 {
		return []Variant{{Name: "user", Current: true}}
	}
	return []Variant{
		{Name: "root", Current: true},
		{Name: "ranges", user: rangesUser},
		{Name: "single", user: singleUser},
	}
}

// Each runs f as a subtest for every variant, in a process of that user.
func Each(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	for _, v := range Variants(t) {
		t.Run(v.Name, func(t *testing.T) {
			if !v.Current {
				RunAs(t, v)
				return
			}
			f(t)
		})
	}
}

var (
	shareOnce sync.Mutex // guards what follows
	shareDir  string
)

// Shared returns a directory that every user can read, filled by build at most once for all variants of a test
// binary: programs that take long to compile. The first variant should be this process.
func Shared(t testing.TB, name string, build func(dir string)) string {
	t.Helper()
	if base := os.Getenv(sharedEnv); base != "" {
		dir := filepath.Join(base, name)
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	shareOnce.Lock()
	defer shareOnce.Unlock()
	dir := filepath.Join(shared(t), name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	build(tmp)
	if t.Failed() {
		t.FailNow()
	}
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// shared makes the directory of this process; shareOnce is held.
func shared(t testing.TB) string {
	t.Helper()
	if shareDir != "" {
		return shareDir
	}
	dir, err := os.MkdirTemp(tempDir(), "manifestctl-test-") //nolint:usetesting // outlives the test, and others can read it
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for the other users
		t.Fatal(err)
	}
	shareDir = dir
	return dir
}

// tempDir is a place that other users can reach.
func tempDir() string {
	dir := os.TempDir()
	if reachable(dir) {
		return dir
	}
	return "/tmp"
}

// reachable reports whether users without any right of their own may search dir and all above it.
func reachable(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		st, err := os.Stat(dir)
		if err != nil || st.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// Cleanup removes what was shared. TestMain calls it after the tests.
func Cleanup() {
	shareOnce.Lock()
	defer shareOnce.Unlock()
	if shareDir != "" {
		_ = os.RemoveAll(shareDir) // in the temporary directory: whatever stays, goes with that
		shareDir = ""
	}
}

//go:build linux

package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestKilledAnytime: whichever of our processes is killed at whatever time of a build, the build ends, no process and no mount
// is left, the next build works, and `store gc --cache` leaves nothing that the user cannot remove. MANIFESTCTL_KILLS is how
// many are killed for each user (make kills).
func TestKilledAnytime(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to kill what belongs to subordinate ids")
	}
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("MANIFESTCTL_KILLS")); err == nil {
		kills = n
	}
	// Whose parent dies becomes ours, so nothing can hide.
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := busybox(t, w, "killed-anytime", "  - run: mkdir /a && touch /a/f && chown 33:34 /a/f && chmod 0 /a && chown 35:8 /a && (sleep 60 & sleep 0.1)\n"+
				"    mounts: [{type: cache, target: /cache}]\n"+
				"  - run: touch /cache/f && chown 33:34 /cache/f && mkdir -p /b/c && chown -R 40:41 /b && chmod 0 /b/c && sleep 0.1\n"+
				"    mounts: [{type: cache, target: /cache}, {type: tmpfs, target: /t/u}]\n")
			build := func() *exec.Cmd { return w.command(epoch, "build", "--no-cache", "--progress", "plain", dir) }
			began := time.Now()
			want := digestOf(t, ok(t, build()))
			whole := time.Since(began)
			mounts := mountsHere(t)
			others := descendants(os.Getpid())
			assert.Empty(t, mounts)
			killed := map[string]int{}
			for range kills {
				name := killOne(t, build(), time.Duration(rand.Int64N(int64(whole))))
				killed[name]++
				var left map[int]string
				for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
					left = descendants(os.Getpid())
					for pid := range left {
						if _, was := others[pid]; was || reaped(pid) {
							delete(left, pid)
						}
					}
					if len(left) == 0 || time.Now().After(end) {
						break
					}
				}
				require.Empty(t, left, "after the death of %s", name)
				require.Equal(t, mounts, mountsHere(t), "after the death of %s", name)
			}
			t.Logf("killed: %v", killed)
			assert.Equal(t, want, digestOf(t, ok(t, build())), "the next build")
			ok(t, w.command(nil, "store", "check", "--read-data"))
			ok(t, w.command(nil, "store", "gc", "--cache"))
			assert.Empty(t, foreign(t, w), "files in the store that are not the user's")
			ok(t, w.other(nil, "rm", "-rf", filepath.Join(w.home, "store")))
		})
	}
}

// killOne starts a command, kills one of its processes after a while, and waits for its end. It says which it was.
func killOne(t *testing.T, c *exec.Cmd, after time.Duration) string {
	t.Helper()
	var log bytes.Buffer
	c.Stderr = &log
	require.NoError(t, c.Start())
	time.Sleep(after)
	all := descendants(c.Process.Pid)
	all[c.Process.Pid] = "manifestctl"
	pids := make([]int, 0, len(all))
	for pid := range all {
		pids = append(pids, pid)
	}
	pid := pids[rand.IntN(len(pids))]
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		_ = c.Process.Kill()
		<-done
		t.Fatalf("the build did not end after the death of %s\n%s", all[pid], log.String())
	}
	return all[pid]
}

// descendants are the processes below pid, with their names.
func descendants(pid int) map[int]string {
	parents, names := map[int][]int{}, map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it ended
		}
		text := string(data)
		open, closing := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		rest := strings.Fields(text[closing+1:])
		id, err1 := strconv.Atoi(strings.TrimSpace(text[:open]))
		parent, err2 := strconv.Atoi(rest[1])
		if err1 != nil || err2 != nil {
			continue
		}
		parents[parent] = append(parents[parent], id)
		names[id] = nameOf(id, text[open+1:closing])
	}
	out := map[int]string{}
	var walk func(int)
	walk = func(p int) {
		for _, c := range parents[p] {
			out[c] = names[c]
			walk(c)
		}
	}
	walk(pid)
	return out
}

// nameOf is a process's argv[0], which says what ours are, else what the kernel calls it.
func nameOf(pid int, comm string) string {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if first, _, _ := bytes.Cut(line, []byte{0}); err == nil && len(first) > 0 {
		return filepath.Base(string(first))
	}
	return comm
}

// reaped waits for a child of ours that has ended; others are somebody else's.
func reaped(pid int) bool {
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	return err == nil && got == pid
}

// mountsHere are the mounts of this namespace at or of what the tests use.
func mountsHere(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	var ours []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, shared.dir) {
			ours = append(ours, line)
		}
	}
	return strings.Join(ours, "")
}

// foreign lists what is in w's store and not w's.
func foreign(t *testing.T, w who) []string {
	t.Helper()
	uid := uint32(0)
	if w.cred != nil {
		uid = w.cred.Uid
	}
	var out []string
	require.NoError(t, filepath.WalkDir(filepath.Join(w.home, "store"), func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		if st.Uid != uid {
			out = append(out, name)
		}
		return nil
	}))
	return out
}

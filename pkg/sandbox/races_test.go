//go:build linux

package sandbox

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// races is how many rounds of each race TestRaces runs, over all users together; make races takes 10,000.
var races = flag.Int("races", 90, "rounds of each race")

// canary is a tree beside the store that no step may reach. It has what would go if a mount point were taken away in
// it (an empty directory, an empty file) and what would be seen if it were read.
type canary struct {
	dir  string
	want string
}

func newCanary(t testing.TB, b *box) *canary {
	t.Helper()
	c := &canary{dir: b.tree("canary", "secret/", "secret/c/", "secret/f=", "in/", "mark=alive")}
	require.NoError(t, os.Chmod(c.dir, 0o777))
	require.NoError(t, os.Chmod(filepath.Join(c.dir, "secret"), 0o777))
	c.want = c.list(t)
	return c
}

// list says everything about the tree that a change of it would change.
func (c *canary) list(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, filepath.WalkDir(c.dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return err
		}
		fmt.Fprintln(&b, name, st.Ino, st.Mode, st.Uid, st.Size, st.Nlink, st.Mtim, st.Ctim)
		return nil
	}))
	return b.String()
}

// TestRaces: who swaps names while a step is set up or cleaned up reaches nothing outside of its rootfs (ROBUSTNESS.md e).
func TestRaces(t *testing.T) {
	if os.Getenv(coveredEnv) != "" {
		// As in a container: no new procfs can be mounted, and steps see the processes that are here.
		require.NoError(t, syscall.Mount("x", "/proc/fs", "tmpfs", 0, ""))
		b := boxOf(t, newPool(t, Options{Mode: ModeSingle, Agents: 2}))
		raceProc(t, b, newCanary(t, b))
		return
	}
	variants := testuser.Variants(t)
	if testing.Short() {
		*races = min(*races, 15)
	}
	long := *races > 1000
	*races = (*races + len(variants) - 1) / len(variants)
	probe(t, runtime.GOARCH)
	for _, v := range variants {
		t.Run(v.Name, func(t *testing.T) {
			if long { // most of a round is waiting
				t.Parallel()
			}
			if !v.Current {
				testuser.RunAs(t, v, "-races="+strconv.Itoa(*races))
				return
			}
			b := boxOf(t, newPool(t, Options{Agents: 2}))
			c := newCanary(t, b)
			for name, race := range map[string]func(testing.TB, *box, *canary){
				"E07 stub swap": raceStubs, "E14 cache mount swap": raceCache, "proc 1 fd": raceProc, "symlinked mount targets": raceTargets,
			} {
				t.Run(name, func(t *testing.T) { race(t, b, c) })
			}
			t.Run("proc 1 fd in a covered proc", inCoveredProc)
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			require.NoError(t, err)
			assert.NotContains(t, string(mounts), b.dir, "no mount is left on the host")
		})
	}
}

const coveredEnv = "MANIFESTCTL_TEST_COVERED"

func inCoveredProc(t *testing.T) {
	probe(t, runtime.GOARCH)
	shared := testuser.Shared(t, "probe-"+runtime.GOARCH, nil)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestRaces$", "-test.timeout=0", "-races="+strconv.Itoa((*races+19)/20)) // it looks at every process of the machine
	cmd.Env = append(os.Environ(), coveredEnv+"=1", "MANIFESTCTL_TEST_SHARED="+filepath.Dir(shared), "MANIFESTCTL_TEST_VARIANT=user")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// rounds runs f as often as asked for and looks at the canary every now and then. The first round that hurts it is near.
func rounds(t testing.TB, c *canary, f func(i int)) {
	t.Helper()
	for i := range *races {
		f(i)
		if i%20 == 0 || i == *races-1 {
			require.Equal(t, c.want, c.list(t), "an escape in one of the 20 rounds until %d", i)
		}
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// scratchOf gives a step its scratch directory for one round.
func (b *box) round(s Step) result {
	b.t.Helper()
	r := b.run(s)
	require.NoError(b.t, b.pool.Remove(context.Background(), s.Scratch))
	return r
}

// raceStubs: a process of the step swaps the parent of its mount points for a link to the canary, until it is killed at the
// step's end; then they are taken away.
func raceStubs(t testing.TB, b *box, c *canary) {
	swapped := 0
	round := func(int) {
		s := b.step("symlink", c.dir, "/l", "--", "swap", "/a", "/l", "--", "daemon", "flip", "/a", "/l", "--", "usleep", strconv.Itoa(rand.IntN(6000)), "--", "readlink", "/a")
		s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/a/secret/c"}, {Kind: MountData, Target: "/a/secret/f"}}
		s.Keep = filepath.Join(s.Scratch, "kept")
		var exit *ExitError
		if r := b.round(s); r.failure != nil {
			require.ErrorAs(t, r.failure, &exit, r.err) // readlink of a directory
		} else {
			swapped++
		}
	}
	rounds(t, c, round)
	for i := 0; swapped == 0 && i < 100; i++ { // few rounds may all end with the directory there
		round(i)
	}
	t.Logf("%d rounds ended with the link in the directory's place", swapped)
	assert.Positive(t, swapped)
}

// raceCache: two steps share a cache. One swaps a directory in it for a link to the canary, for ever; the other mounts
// below that name.
func raceCache(t testing.TB, b *box, c *canary) {
	cache := b.tree("shared", "d/", "l -> "+c.dir)
	worked := 0
	attacked(t, b, []Mount{{Kind: MountDir, Target: "/c", Source: cache}}, []string{"flip", "/c/d", "/c/l"}, func() {
		rounds(t, c, func(int) {
			s := b.step("open", "/c/d/mark", "--", "ls", "/c/d/secret/c", "--", "write", "/c/d/secret/c/x", "y")
			s.Mounts = []Mount{{Kind: MountDir, Target: "/c", Source: cache}, {Kind: MountTmpfs, Target: "/c/d/secret/c"}, {Kind: MountData, Target: "/c/d/secret/f"}}
			r := b.round(s)
			assert.NotContains(t, r.out, "opened")
			if r.failure == nil {
				worked++
			}
		})
	})
	t.Logf("%d of %d rounds could be set up and run", worked, *races)
	if *races > 1000 {
		assert.Positive(t, worked)
	}
}

// raceTargets: the names on the way to mount points and to the working directory are swapped for links: up and out, by the
// host's name, and to what /proc shows of processes.
func raceTargets(t testing.TB, b *box, c *canary) {
	up := strings.Repeat("../", 40)
	vol := b.tree("vol", "d/", "d/in/", "1 -> "+up+c.dir[1:], "2 -> /proc/self/root"+c.dir, "3 -> /proc/1/cwd/"+up+c.dir[1:], "4 -> /proc/self/fd/3")
	started, inside := 0, 0
	attack := []string{"daemon", "flip", "/v/d", "/v/1", "--", "daemon", "flip", "/v/1", "/v/2", "--", "daemon", "flip", "/v/2", "/v/3", "--", "flip", "/v/3", "/v/4"}
	attacked(t, b, []Mount{{Kind: MountDir, Target: "/v", Source: vol}}, attack, func() {
		rounds(t, c, func(i int) {
			s := b.step("cwd", "--", "open", "mark", "../mark", "--", "write", "pwned", "x")
			s.Cwd = "/v/d/in"
			s.Mounts = []Mount{{Kind: MountDir, Target: "/v", Source: vol}}
			if i%2 == 0 {
				s.Mounts = append(s.Mounts, Mount{Kind: MountData, Target: "/v/d/secret/f"}, Mount{Kind: MountOverlay, Target: "/v/d/secret/c", Lowers: []string{b.root}})
			}
			r := b.round(s)
			assert.NotContains(t, r.out, "opened")
			if strings.Contains(r.out, "/in\n") {
				started++
			}
			if strings.HasPrefix(r.out, "/v/d/in\n") {
				inside++
			}
		})
	})
	t.Logf("%d of %d rounds started, %d in the volume itself", started, *races, inside)
	if *races > 1000 {
		assert.Positive(t, started)
	}
}

// attacked runs f while a step does something for ever.
func attacked(t testing.TB, b *box, mounts []Mount, verbs []string, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := b.step(append([]string{"echo", "ready", "--"}, verbs...)...)
	s.Mounts = mounts
	ready, ended := make(chan struct{}, 1), make(chan error, 1)
	s.Stdout = writerFunc(func(p []byte) (int, error) {
		select {
		case ready <- struct{}{}:
		default:
		}
		return len(p), nil
	})
	var stderr strings.Builder
	s.Stderr = &stderr
	go func() { ended <- b.pool.Run(ctx, s) }()
	defer func() {
		cancel()
		err := <-ended
		require.ErrorIs(t, err, context.Canceled, "the attack went on to the end: %s", stderr.String())
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Errorf("the attack did not start: %v", err)
		return
	}
	f()
}

// raceProc: a step looks for a way out behind every descriptor, root and working directory that /proc shows, while another is
// there and more come and go.
func raceProc(t testing.TB, b *box, c *canary) {
	tried := 0
	attacked(t, b, nil, []string{"sleep", "36000000"}, func() {
		rounds(t, c, func(int) {
			r := b.round(b.step("walkproc", filepath.Join(c.dir, "mark")))
			require.NoError(t, r.failure, r.err)
			assert.NotContains(t, r.out, "ESCAPED")
			_, n, _ := strings.Cut(strings.TrimSpace(r.out), "tried ")
			more, err := strconv.Atoi(n)
			require.NoError(t, err, r.out)
			tried += more
		})
	})
	t.Logf("%d ways tried", tried)
	assert.Greater(t, tried, 20**races)
}

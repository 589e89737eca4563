//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// running counts processes of this machine that have the text in their command line.
func running(t testing.TB, text string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	n := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && bytes.Contains(data, []byte(text)) && !strings.HasPrefix(f, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			n++
		}
	}
	return n
}

// token is a number of milliseconds to sleep that no other process has: a name to find a process by.
func token() string {
	return strconv.FormatInt(600_000_000+time.Now().UnixNano()%100_000_000, 10)
}

var errEnough = errors.New("enough")

func TestLifecycle(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)

		t.Run("E02 daemons", func(t *testing.T) {
			tok := token()
			r := b.run(b.step("daemon", "self", "sleep", tok))
			require.NoError(t, r.failure, r.err)
			assert.Less(t, r.took, 5*time.Minute, "although they hold stdout")
			assert.Zero(t, running(t, tok))
		})
		t.Run("cancel", func(t *testing.T) {
			tok := token()
			ctx, cancel := context.WithCancelCause(t.Context())
			s := b.step("daemon", "sleep", tok)
			s.Args = append(s.Args, "--", "echo", "ready", "--", "sleep", tok)
			ready := make(chan struct{})
			s.Stdout = writerFunc(func(p []byte) (int, error) { close(ready); return len(p), nil })
			go func() { <-ready; cancel(errEnough) }()
			err := b.pool.Run(ctx, s)
			require.ErrorIs(t, err, errEnough)
			assert.Zero(t, running(t, tok), "nothing is left when Run returns")
			assert.Equal(t, "again\n", b.ok("echo", "again"))
		})
		t.Run("cancelled before", func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errEnough)
			require.ErrorIs(t, b.pool.Run(ctx, b.step("true")), errEnough)
		})
		t.Run("cancel while unpacking", func(t *testing.T) {
			r, w, err := os.Pipe() // nothing ever comes
			require.NoError(t, err)
			defer r.Close()
			defer w.Close()
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errEnough)
			defer cancel()
			require.ErrorIs(t, b.pool.Unpack(ctx, b.tree("never"), r, layer.Limits{}), errEnough)
		})
		t.Run("a fork bomb", func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errEnough)
			defer cancel()
			s := b.step("bomb", token(), "7") // 255 processes
			require.ErrorIs(t, b.pool.Run(ctx, s), errEnough)
			assert.Zero(t, running(t, s.Args[2]))
			tok := token()
			r := b.run(b.step("daemon", "bomb", tok, "7")) // the first process ends at once
			require.NoError(t, r.failure)
			assert.Zero(t, running(t, tok))
		})
		t.Run("signals to the agent", func(t *testing.T) {
			for sig := 1; sig < 32; sig++ {
				r := b.run(b.step("kill", "1", strconv.Itoa(sig), "--", "echo", "alive"))
				require.NoError(t, r.failure, "signal %d", sig)
				assert.Equal(t, "alive\n", r.out, "signal %d", sig)
			}
			r := b.run(b.step("daemon", "sleep", token(), "--", "kill", "-1", "9")) // everything but the agent and itself
			require.NoError(t, r.failure)
			assert.Len(t, b.pool.all, 1, "it was the same agent all the time")
		})
		t.Run("the agent is killed", func(t *testing.T) {
			s := b.step("echo", "ready", "--", "sleep", token())
			s.Stdout = writerFunc(func(p []byte) (int, error) {
				b.pool.mu.Lock()
				defer b.pool.mu.Unlock()
				for a := range b.pool.all {
					a.kill()
				}
				return len(p), nil
			})
			err := b.run(s).failure
			require.ErrorIs(t, err, errAgent)
			assert.Contains(t, err.Error(), "killed")
			assert.Equal(t, "again\n", b.ok("echo", "again"), "the pool has another")
		})
		t.Run("the idle agent is killed", func(t *testing.T) {
			b.pool.mu.Lock()
			for a := range b.pool.all {
				a.kill()
				a.wait()
			}
			b.pool.mu.Unlock()
			assert.Equal(t, "again\n", b.ok("echo", "again"))
		})
		t.Run("E04 much output", func(t *testing.T) {
			const size = 64 << 20
			h, n := sha256.New(), int64(0)
			s := b.step("fill", strconv.Itoa(size), "--", "fillerr", strconv.Itoa(size/2))
			s.Stdout = writerFunc(func(p []byte) (int, error) { n += int64(len(p)); return h.Write(p) })
			var m int64
			s.Stderr = writerFunc(func(p []byte) (int, error) { m += int64(len(p)); return len(p), nil })
			require.NoError(t, b.run(s).failure)
			assert.EqualValues(t, size, n)
			assert.EqualValues(t, size/2, m)
			want := sha256.New()
			block := make([]byte, 1<<16)
			for i := range block {
				block[i] = byte(i)
			}
			for range size >> 16 {
				want.Write(block)
			}
			assert.Equal(t, want.Sum(nil), h.Sum(nil))
		})
		t.Run("a slow reader", func(t *testing.T) {
			s := b.step("fill", strconv.Itoa(256<<10))
			var n int64
			s.Stdout = writerFunc(func(p []byte) (int, error) { time.Sleep(20 * time.Millisecond); n += int64(len(p)); return len(p), nil })
			require.NoError(t, b.run(s).failure)
			assert.EqualValues(t, 256<<10, n)
		})
		t.Run("writers that fail", func(t *testing.T) {
			s := b.step("fill", strconv.Itoa(1<<20))
			s.Stdout = writerFunc(func([]byte) (int, error) { return 0, errEnough })
			require.ErrorIs(t, b.run(s).failure, errEnough)
			s = b.step("write", "/x", strings.Repeat("x", 100<<10))
			s.Diff = writerFunc(func([]byte) (int, error) { return 0, errEnough })
			require.ErrorIs(t, b.run(s).failure, errEnough)
			assert.Equal(t, "again\n", b.ok("echo", "again"))
		})
		t.Run("nobody listens", func(t *testing.T) {
			s := b.step("fill", strconv.Itoa(1<<20), "--", "fillerr", strconv.Itoa(1<<20))
			require.NoError(t, b.pool.Run(t.Context(), s))
		})
		t.Run("bad steps", func(t *testing.T) {
			s := b.step()
			s.Args = nil
			require.ErrorIs(t, b.run(s).failure, os.ErrInvalid)
			s = b.step("true")
			s.Scratch = ""
			require.ErrorIs(t, b.run(s).failure, os.ErrInvalid)
			s = b.step("true")
			s.Scratch = filepath.Join(b.dir, "absent")
			require.ErrorIs(t, b.run(s).failure, syscall.ENOENT)
			s = b.step("true")
			s.Lowers = []string{filepath.Join(b.dir, "absent")}
			require.ErrorIs(t, b.run(s).failure, syscall.ENOENT)
		})
		t.Run("descriptors and threads do not pile up", func(t *testing.T) {
			count := func() int {
				es, err := os.ReadDir("/proc/self/fd")
				require.NoError(t, err)
				return len(es)
			}
			agentCount := func() (n int) {
				for a := range b.pool.all {
					st, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.proc.Pid))
					require.NoError(t, err)
					for line := range strings.Lines(string(st)) {
						if v, ok := strings.CutPrefix(line, "Threads:"); ok {
							n, err = strconv.Atoi(strings.TrimSpace(v))
							require.NoError(t, err)
						}
					}
				}
				return n
			}
			agentFDs := func() (n int) {
				for a := range b.pool.all {
					es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.proc.Pid))
					require.NoError(t, err)
					n += len(es)
				}
				return n
			}
			for range 3 {
				b.ok("true")
			}
			fds, threads, inAgent := count(), agentCount(), agentFDs()
			for i := range 30 {
				s := b.step("true")
				s.HostNet, s.Mounts = i%2 == 0, []Mount{
					{Kind: MountTmpfs, Target: "/a/b"}, {Kind: MountData, Target: "/a/b/c"}, {Kind: MountOverlay, Target: "/o", Lowers: []string{b.root}},
				}
				require.NoError(t, b.run(s).failure)
				s = b.step("true")
				s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/bin/probe/x"}}
				require.Error(t, b.run(s).failure)
			}
			// 60 steps: one more of each for every step or mount would be many more; some threads more come of a busy machine.
			assert.LessOrEqual(t, count(), fds+10)
			assert.LessOrEqual(t, agentCount(), threads+20)
			assert.LessOrEqual(t, agentFDs(), inAgent+10)
		})
	})
}

func TestParallel(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := boxOf(t, newPool(t, Options{Agents: 3}))
		var now, most atomic.Int32
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				var out bytes.Buffer
				s := b.step("echo", strconv.Itoa(i), "--", "sleep", "30", "--", "echo", "done")
				s.Stdout = writerFunc(func(p []byte) (int, error) { // all of it is while the step has its place
					if out.Len() == 0 {
						n := now.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
					}
					n, err := out.Write(p)
					if bytes.HasSuffix(out.Bytes(), []byte("done\n")) {
						now.Add(-1)
					}
					return n, err
				})
				err := b.pool.Run(t.Context(), s)
				assert.NoError(t, err)
				assert.Equal(t, strconv.Itoa(i)+"\ndone\n", out.String())
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, most.Load(), int32(3))
		assert.Zero(t, now.Load())
		assert.LessOrEqual(t, len(b.pool.all), 3)
	})
}

// TestDescriptors: without descriptors a step fails with their name, and the next one works again.
func TestDescriptors(t *testing.T) {
	b := newBox(t)
	s := b.step("echo", "x")
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	low := old
	low.Cur = 3 // those are taken
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	err := b.run(s).failure
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
	require.ErrorIs(t, err, syscall.EMFILE)
	assert.Equal(t, "x\n", b.ok("echo", "x"))
}

// TestSupervisorKilled: when this program is killed, so is everything it started.
func TestSupervisorKilled(t *testing.T) {
	const victim = "MANIFESTCTL_TEST_VICTIM"
	testuser.Each(t, func(t *testing.T) {
		if tok := os.Getenv(victim); tok != "" {
			b := newBox(t)
			s := b.step("daemon", "sleep", tok, "--")
			s.Args = []string{"probe", "daemon", "sleep", tok}
			s.Args = append(s.Args, "--", "echo", "ready", "--", "sleep", tok)
			s.Stdout = os.Stderr
			_ = b.run(s)
			t.Fatal("not killed")
		}
		tok := token()
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestSupervisorKilled$")
		cmd.Env = append(os.Environ(), victim+"="+tok)
		if os.Geteuid() == 0 {
			cmd.Env = append(cmd.Env, "MANIFESTCTL_TEST_VARIANT=root")
		}
		out, err := cmd.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		buf := make([]byte, 6)
		_, err = io.ReadFull(out, buf)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, running(t, tok), 1)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		assert.Eventually(t, func() bool { return running(t, tok) == 0 }, time.Minute, 10*time.Millisecond)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

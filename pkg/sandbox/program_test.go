//go:build linux

package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// agentProgram is the path of testdata/agent, compiled.
func agentProgram(t testing.TB) string {
	t.Helper()
	dir := testuser.Shared(t, "agent", func(dir string) {
		src, err := filepath.Abs("testdata/agent")
		require.NoError(t, err)
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "agent"), ".")
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return filepath.Join(dir, "agent")
}

// TestE01Program: agents run from a file that nobody in their namespaces can write to: not a step that was made to
// execute it, and not whoever has all capabilities there and a descriptor of it. That the attack works is shown by a file without a shield.
func TestE01Program(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		path := agentProgram(t)
		b := newBox(t)
		assert.NotEqual(t, shieldNone, b.pool.exe.shield)
		mine := filepath.Join(t.TempDir(), "agent")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(mine, data, 0o755))
		require.NoError(t, os.Chmod(mine, 0o755))

		ids := b.pool.plan.uids
		mapped := func(uid int) bool { return ids[0].Outside == int64(uid) || b.pool.Mode() == ModeRoot }
		itself := func(src *os.File) (*os.File, error) { return src, nil }
		for s, c := range map[shield]struct {
			file string
			open func(src *os.File) (*os.File, error)
			// What a step finds when it executes the program, and who has all capabilities when no agent runs any more. Of a
			// sealed file mode and owner can be changed, which writes nothing.
			step, all []string
		}{
			shieldView:  {mine, lockedView, []string{"read-only file system"}, []string{"read-only file system"}},
			shieldSeals: {mine, sealedCopy, []string{"chmod worked", "chown worked", "text file busy"}, []string{"chmod worked", "chown worked", "operation not permitted"}},
			shieldOwner: {path, itself, []string{"permission denied"}, []string{"permission denied"}},
			shieldNone:  {mine, itself, []string{"chmod worked", "chown worked", "text file busy"}, []string{"written"}},
		} {
			name := string(s)
			if name == "" {
				name = "no shield"
			}
			t.Run(name, func(t *testing.T) {
				src, err := os.Open(c.file)
				require.NoError(t, err)
				if s == shieldView || s == shieldSeals {
					defer src.Close()
				}
				var st unix.Stat_t
				require.NoError(t, unix.Fstat(int(src.Fd()), &st))
				switch {
				case s == shieldOwner && mapped(int(st.Uid)):
					assert.False(t, ownerGuards(src, b.pool.plan))
					t.Skip("the program's owner has an id in the namespaces of steps")
				case s == shieldOwner:
					assert.True(t, ownerGuards(src, b.pool.plan))
				}
				f, err := c.open(src)
				require.NoError(t, err)
				defer f.Close() // may be src
				shielded, err := reopened(f, s, nil)
				require.NoError(t, err)
				box := boxOf(t, newPool(t, Options{}))
				used := box.pool.exe
				defer used.Close()
				box.pool.exe = shielded // which Close closes
				a, err := box.pool.start(t.Context())
				require.NoError(t, err)
				for _, old := range box.pool.idle {
					box.pool.drop(old)
				}
				box.pool.idle = []*agent{a}

				script := filepath.Join(box.root, "bin", "script")
				require.NoError(t, os.WriteFile(script, []byte("#!/proc/self/exe\n"), 0o755))
				step := box.step()
				step.Args = []string{"script"}
				r := box.run(step)
				require.NoError(t, r.failure, r.err)
				assert.ElementsMatch(t, c.step, strings.Split(strings.TrimSpace(r.out), "\n"))

				assert.ElementsMatch(t, c.all, strings.Split(strings.TrimSpace(attack(t, a)), "\n"))
				if s == shieldNone {
					return
				}
				w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", shielded.Fd()), os.O_WRONLY, 0)
				if s != shieldOwner || os.Geteuid() != 0 { // root of the machine may do what it wants with its files
					if err == nil {
						_, err = w.WriteAt([]byte{0x7f}, 0) // as it is
						w.Close()
					}
					require.Error(t, err)
				}
			})
		}
	})
}

// attack has somebody with all capabilities in an agent's namespaces write to its program, when it is executed by nobody any more.
func attack(t *testing.T, a *agent) string {
	t.Helper()
	pid := fmt.Sprint(a.proc.Pid)
	cmd := exec.Command("nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials", probe(t, runtime.GOARCH), "overwrite", "/proc/"+pid+"/exe", "wait")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { require.NoError(t, cmd.Wait()) }()
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "holding\n", line)
	program, err := os.Stat("/proc/" + pid + "/exe")
	require.NoError(t, err)
	a.kill()
	a.wait()
	require.Eventually(t, func() bool { // what it had started may end a little later
		exes, err := filepath.Glob("/proc/[0-9]*/exe")
		return err == nil && !slices.ContainsFunc(exes, func(exe string) bool {
			other, err := os.Stat(exe)
			return err == nil && os.SameFile(program, other)
		})
	}, time.Minute, time.Millisecond)
	require.NoError(t, in.Close())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(got)
}

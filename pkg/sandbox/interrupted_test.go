//go:build linux

package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// disturb sends signals to every thread of everything that descends from this process until the test ends: the collector of
// Go does that, and so does each stop of a traced task, but rarely at the moment that matters.
func disturb(t *testing.T) {
	t.Helper()
	proc, err := openDir("/proc")
	require.NoError(t, err)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			all, err := family(proc)
			if err != nil {
				continue
			}
			var tasks [][2]int // process and thread
			for _, status := range all {
				pid := int(field(status, "Tgid:"))
				dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
				for _, dir := range dirs {
					if tid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
						tasks = append(tasks, [2]int{pid, tid})
					}
				}
			}
			for range 200 {
				for _, task := range tasks {
					if unix.Tgkill(task[0], task[1], unix.SIGURG) == nil {
						n++
					}
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		assert.Positive(t, <-done, "signals sent")
		unix.Close(proc)
	})
}

// TestInterrupted: a signal to the thread that answers a step's call does not change the answer. It did: a descriptor that the
// kernel was about to hand over, as the result of open(2), was taken back, and the result was 0, the step's standard input.
func TestInterrupted(t *testing.T) {
	const files = 300
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		steps := strings.Builder{}
		steps.WriteString("setgid 34; setuid 33")
		var want []string
		for i := range files {
			fmt.Fprintf(&steps, "; write /open/%d text", i)
			want = append(want, fmt.Sprintf("0 644 33:34 open/%d = text", i))
		}
		disturb(t)
		s := ownBox(t, b, runtime.GOARCH, verbs(steps.String()))
		var buf bytes.Buffer
		s.Diff = &buf
		r := b.run(s)
		require.NoError(t, r.failure, r.err)
		var got []string
		for _, line := range listTar(t, &buf) {
			if strings.Contains(line, " open/") && !strings.HasSuffix(line, "/") {
				got = append(got, line)
			}
		}
		assert.ElementsMatch(t, want, got)
	})
	t.Run("a served proc", func(t *testing.T) {
		if os.Getuid() != 0 || len(procCalls) == 0 {
			t.Skip("a /proc is served where root's steps have no namespaces")
		}
		b := newJail(t, Options{})
		var args []string
		for i := range files {
			if i > 0 {
				args = append(args, "--")
			}
			args = append(args, "open", "/proc/meminfo", "--", "fds")
		}
		disturb(t)
		r := b.run(b.inTree(b.step(args...)))
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, files, strings.Count(r.out, "/proc/meminfo opened"))
	})
}

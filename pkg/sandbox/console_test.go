//go:build linux

package sandbox

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

func itoa(n int) string { return strconv.Itoa(n) }

// screen is what a terminal showed so far.
type screen struct {
	mu   sync.Mutex // guards text
	text string
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text += string(p)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// shows waits for a text.
func (s *screen) shows(t *testing.T, text string) {
	t.Helper()
	for end := time.After(2 * time.Minute); !strings.Contains(s.String(), text); {
		select {
		case <-s.more:
		case <-end:
			t.Fatalf("never showed %q: %q", text, s.String())
		}
	}
}

func TestTerminal(t *testing.T) {
	testuser.Each(t, func(t *testing.T) { testTerminal(t, newBox(t)) })
}

// TestJailTerminal: a step without namespaces gets a terminal of the container's, and may make more; it gets no other.
func TestJailTerminal(t *testing.T) {
	b := newJail(t, Options{})
	testTerminal(t, b)
	t.Run("terminals that it makes", func(t *testing.T) {
		b.t = t
		r := b.run(b.inTree(b.step("pty", "--", "ls", "/dev/pts")))
		require.NoError(t, r.failure, r.err)
		assert.Regexp(t, `^/dev/pts/\d+ owner 0: through it\n/dev/pts/\d+ is gone\n$`, r.out)
		s := b.inTree(b.step("pty"))
		s.Account = layer.Account{UID: 7, GID: 7}
		r = b.run(s)
		require.NoError(t, r.failure, r.err)
		assert.Contains(t, r.out, " owner 7: through it\n")
	})
	t.Run("no terminal of others", func(t *testing.T) {
		b.t = t
		master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(master)
		n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
		require.NoError(t, err)
		require.NoError(t, unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0))
		name := "/dev/pts/" + itoa(int(n))
		s := b.inTree(b.step("open", name, "/dev/pts/../pts/"+itoa(int(n)), "/dev/ptmx"))
		s.Terminal = true
		r := b.run(s)
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, 1, strings.Count(r.out, " opened"), r.out)
		assert.Contains(t, r.out, "/dev/ptmx opened")
	})
}

func testTerminal(t *testing.T, b *box) {
	step := func(args ...string) Step {
		s := b.step(args...)
		if b.pool.Whole() {
			s = b.inTree(s)
		}
		return s
	}
	t.Run("size, owner and controlling terminal", func(t *testing.T) {
		s := step("terminal", "--", "session")
		s.Terminal, s.Account = true, layer.Account{UID: 7, GID: 7}
		sizes := make(chan Size, 1)
		sizes <- Size{101, 33}
		s.Sizes = sizes
		r := b.run(s)
		require.NoError(t, r.failure, r.out)
		owner := "7"
		if b.pool.Mode() == ModeSingle {
			owner = "0" // which the step's user is all the same
		}
		assert.Equal(t, "/dev/pts/N 101 33 "+owner+"\r\ntrue\r\n", regexp.MustCompile(`^/dev/pts/\d+ `).ReplaceAllString(r.out, "/dev/pts/N "))
	})
	t.Run("its size changes", func(t *testing.T) {
		s, show, sizes := step("resized"), newScreen(), make(chan Size)
		s.Terminal, s.Sizes, s.Stdout = true, sizes, show
		done := make(chan error, 1)
		go func() { done <- b.pool.Run(t.Context(), s) }()
		show.shows(t, "waiting")
		sizes <- Size{50, 20}
		require.NoError(t, <-done)
		assert.Contains(t, show.String(), " 50 20 ")
	})
	t.Run("typing", func(t *testing.T) {
		in, typed := io.Pipe()
		s, show := step("echo", "name?", "--", "line", "--", "sleep", "600000"), newScreen()
		s.Terminal, s.Stdin, s.Stdout = true, in, show
		done := make(chan error, 1)
		go func() { done <- b.pool.Run(t.Context(), s) }()
		show.shows(t, "name?")
		_, err := io.WriteString(typed, "mary\n")
		require.NoError(t, err)
		show.shows(t, "read mary")
		_, err = io.WriteString(typed, "\x03") // what ^C types into a raw terminal
		require.NoError(t, err)
		var exit *ExitError
		require.ErrorAs(t, <-done, &exit)
		assert.Equal(t, 130, exit.Code)
	})
	t.Run("the end of what is typed", func(t *testing.T) {
		s := step("copy", "--", "exit", "7")
		s.Terminal, s.Stdin = true, strings.NewReader("last words\n")
		r := b.run(s)
		var exit *ExitError
		require.ErrorAs(t, r.failure, &exit)
		assert.Equal(t, 7, exit.Code)
		assert.Contains(t, r.out, "last words\r\n")
	})
	t.Run("all that it showed arrives", func(t *testing.T) {
		s := step("fill", "1048576")
		s.Terminal = true
		r := b.run(s)
		require.NoError(t, r.failure)
		assert.GreaterOrEqual(t, len(r.out), 1<<20)
	})
	t.Run("signals", func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
			s, show, signals := step("trap", itoa(int(sig)), "5"), newScreen(), make(chan syscall.Signal)
			s.Signals, s.Stdout = signals, show
			done := make(chan error, 1)
			go func() { done <- b.pool.Run(t.Context(), s) }()
			show.shows(t, "waiting")
			signals <- sig
			var exit *ExitError
			require.ErrorAs(t, <-done, &exit)
			assert.Equal(t, 5, exit.Code)
			assert.Contains(t, show.String(), "trapped "+itoa(int(sig)))
		}
	})
	t.Run("what cannot be started", func(t *testing.T) {
		s := step()
		s.Args, s.Terminal, s.Stdin = []string{"/absent"}, true, strings.NewReader("")
		var exit *ExitError
		require.ErrorAs(t, b.run(s).failure, &exit)
		assert.Equal(t, 127, exit.Code)
	})
}

// TestTerminalSlowReader: all that a terminal showed is passed on, although whoever it is passed on to is slow near the end.
func TestTerminalSlowReader(t *testing.T) {
	const size = 20_000
	b := newBox(t)
	s, got, slept := b.step("fill", itoa(size)), 0, false
	s.Terminal = true
	s.Stdout = writerFunc(func(p []byte) (int, error) {
		if got += len(p); got >= size-6000 && !slept {
			slept = true
			time.Sleep(drainPatience + 500*time.Millisecond)
		}
		return len(p), nil
	})
	require.NoError(t, b.run(s).failure)
	assert.GreaterOrEqual(t, got, size)
}

package sandbox

// This file bounds what a step uses. What a cgroup bounds is not looked at here; the rest is kept by limits of processes
// (rlimits, affinity), which are exact and too narrow, and by looking at the step while it runs, which is neither.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox/firstproc"
)

const (
	// guardPeriod is how long a step may be over a bound that is watched.
	guardPeriod = 50 * time.Millisecond
	// diskPeriod is the shortest time between two looks at what a step wrote; it grows with how long a look takes.
	diskPeriod = 200 * time.Millisecond
	// spareTasks are processes and threads beyond the bound that the rlimit allows: the agent and its init have some
	// under the same id.
	spareTasks = 64
)

// guard watches one running step.
type guard struct {
	st     *step
	pid    int   // of its first process
	before int64 // bytes of the tree that it may change in place
	cancel context.CancelFunc
	wait   sync.WaitGroup
	limit  string // what the step went over; read it after wait
}

// watch puts the process, which has not executed anything yet, under the step's bounds and starts to watch it.
func (st *step) watch(pid int) (*guard, error) {
	r := st.Resources
	if st.group >= 0 {
		if _, err := unix.Write(st.group, []byte(strconv.Itoa(pid))); err != nil {
			return nil, fmt.Errorf("%w: moving a step into its cgroup: %w", ErrHost, err)
		}
	}
	if r.CPUs > 0 {
		if err := pin(pid, (r.CPUs+999)/1000); err != nil {
			return nil, fmt.Errorf("%w: limiting a step to %d processors: %w", ErrHost, (r.CPUs+999)/1000, err)
		}
	}
	for _, l := range []struct {
		on    int64
		res   int
		limit int64
	}{
		{r.PIDs, unix.RLIMIT_NPROC, r.PIDs + spareTasks},
		{r.Memory, unix.RLIMIT_DATA, max(2*r.Memory, r.Memory+1<<30)}, // what is mapped, which is more than what is used
		{r.Disk, unix.RLIMIT_FSIZE, r.Disk},
	} {
		if l.on == 0 {
			continue
		}
		var old unix.Rlimit
		if err := unix.Prlimit(pid, l.res, nil, &old); err != nil {
			return nil, fmt.Errorf("%w: limiting a step: %w", ErrHost, err)
		}
		lim := unix.Rlimit{Cur: min(uint64(l.limit), old.Max), Max: min(uint64(l.limit), old.Max)}
		if err := unix.Prlimit(pid, l.res, &lim, nil); err != nil {
			return nil, fmt.Errorf("%w: limiting a step: %w", ErrHost, err)
		}
	}
	if r == (Resources{}) && st.ctl < 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ends with the step, by stop
	g := &guard{st: st, pid: pid, cancel: cancel}
	if st.ctl >= 0 {
		proc, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("%w: pidfd_open: %w", ErrHost, err)
		}
		g.wait.Go(func() { g.listen(proc) })
	}
	if st.jail != nil && r.Disk > 0 {
		g.before = g.blocks(ctx, math.MaxInt64)
	}
	if r.Timeout > 0 || r.Memory > 0 || r.PIDs > 0 || r.Disk > 0 {
		start := time.Now() //nolint:forbidigo // how long it runs is of no output
		g.wait.Go(func() { g.run(ctx, start) })
	}
	return g, nil
}

// pin leaves n of the processors that a process may use. Steps side by side get different ones.
func pin(pid, n int) error {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &may); err != nil {
		return err
	}
	var all []int
	for cpu := range len(may) * strconv.IntSize {
		if may.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	if n >= len(all) {
		return nil
	}
	var set unix.CPUSet
	for i := range n {
		set.Set(all[(pid+i)%len(all)])
	}
	return unix.SchedSetaffinity(pid, &set)
}

// stop ends the watch and says what the step was ended for; "" is nothing. A nil guard watched nothing.
func (g *guard) stop() string {
	if g == nil {
		return ""
	}
	g.cancel()
	if g.st.ctl >= 0 {
		_ = unix.Shutdown(g.st.ctl, unix.SHUT_RDWR) // wakes who reads it
	}
	g.wait.Wait()
	return g.limit
}

func (g *guard) run(ctx context.Context, start time.Time) {
	r := g.st.Resources
	tick := time.NewTicker(guardPeriod)
	defer tick.Stop()
	var disk time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			limit := ""
			switch {
			case r.Timeout > 0 && now.Sub(start) > r.Timeout:
				limit = fmt.Sprintf("out of time: it ran for longer than %s (--step-timeout)", r.Timeout)
			case r.Memory > 0 || r.PIDs > 0:
				limit = g.usage(r)
			}
			if limit == "" && r.Disk > 0 && now.After(disk) {
				limit = g.disk(ctx, r.Disk)
				took := time.Since(now) //nolint:forbidigo // likewise
				disk = now.Add(max(diskPeriod, 10*took))
			}
			if limit == "" {
				continue
			}
			g.limit = limit
			g.end()
			return
		}
	}
}

// end kills the step; its end is seen by who waits for it.
func (g *guard) end() {
	if g.st.jail != nil {
		_ = unix.Kill(g.pid, unix.SIGKILL) // the rest ends with it
		return
	}
	_ = g.st.first.killAll()
}

// usage sums up what the step's processes use: tasks, and memory that is theirs alone or of their shared mappings.
func (g *guard) usage(r Resources) string {
	statuses, err := g.statuses()
	if err != nil {
		return ""
	}
	var tasks, memory int64
	for _, status := range statuses {
		tasks += max(field(status, "Threads:"), 1)
		memory += (field(status, "RssAnon:") + field(status, "RssShmem:")) << 10
	}
	switch {
	case r.PIDs > 0 && tasks > r.PIDs:
		return fmt.Sprintf("too many processes: it had more than %d, with their threads (--pids)", r.PIDs)
	case r.Memory > 0 && memory > r.Memory:
		return fmt.Sprintf("out of memory: it used more than %s (--memory)", sizeText(r.Memory))
	}
	return ""
}

// statuses are those of the step's processes, as /proc/PID/status has them.
func (g *guard) statuses() ([][]byte, error) {
	if g.st.jail != nil {
		return family(g.st.srv.hostProc)
	}
	if !g.st.first.proc {
		return nil, nil // the host's /proc shows more than the step
	}
	dir, err := os.ReadDir(firstproc.HoldDir)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, e := range dir {
		if pid, err := strconv.Atoi(e.Name()); err != nil || pid == 1 {
			continue
		}
		if status, err := os.ReadFile(firstproc.HoldDir + "/" + e.Name() + "/status"); err == nil { // else it ended
			out = append(out, status)
		}
	}
	return out, nil
}

// field is the number after a key in /proc/PID/status, 0 without one.
func field(status []byte, key string) int64 {
	_, rest, ok := bytes.Cut(status, []byte("\n"+key))
	if !ok {
		return 0
	}
	f := bytes.Fields(rest[:min(len(rest), 40)])
	if len(f) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(f[0]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// disk adds up the blocks of what the step added to its rootfs. The tree changes under it and may be made to mislead: it
// is never left, and what cannot be read counts nothing.
func (g *guard) disk(ctx context.Context, most int64) string {
	if g.blocks(ctx, most+g.before)-g.before <= most {
		return ""
	}
	return fmt.Sprintf("out of disk: it wrote more than %s into its root file system (--disk)", sizeText(most))
}

// blocks adds up to a little more than most bytes.
func (g *guard) blocks(ctx context.Context, most int64) (used int64) {
	root, err := os.OpenRoot(g.st.upper)
	if err != nil {
		return 0
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil //nolint:nilerr // it went, or cannot be read
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // likewise
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			used += st.Blocks * 512
		}
		if used > most {
			return fs.SkipAll
		}
		return nil
	})
	return used
}

// fullBelow is how little is left on a file system that a step has filled.
const fullBelow = 1 << 20

// full says that a step failed where there was no more room for what it wrote.
func (st *step) full() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(st.Scratch, &fs); err != nil {
		return nil //nolint:nilerr // why it failed stays unknown
	}
	switch {
	case fs.Bavail*uint64(fs.Bsize) < fullBelow:
		return fmt.Errorf("the file system of the store is full: %w", unix.ENOSPC)
	case fs.Files > 0 && fs.Ffree == 0:
		return fmt.Errorf("the file system of the store has no inodes left: %w", unix.ENOSPC)
	}
	return nil
}

// sizeText is a size as flags take it.
func sizeText(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// listen passes on the signals that the caller sends, until the socket ends.
func (g *guard) listen(proc int) {
	defer unix.Close(proc)
	var b [1]byte
	for {
		n, err := unix.Read(g.st.ctl, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		_ = unix.PidfdSendSignal(proc, unix.Signal(b[0]), nil, 0) // it may have ended
	}
}

package sandbox

// This file keeps the bounds of steps by cgroups (version 2), where this user was given a part of the tree. What is written
// outside of steps' own cgroups: the controllers of our cgroup's children are turned on, and for that this program and
// its agents move into a child, because a cgroup with controllers for children has no processes. All is undone at the end.

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mendCgroup is how to get a cgroup of one's own.
const mendCgroup = "systemd-run --user --scope -p Delegate=yes manifestctl ... runs it with one; in a container: a private cgroup namespace with /sys/fs/cgroup writable"

// The names of cgroups that we make.
const (
	cgroupSelf = "manifestctl.self"
	cgroupStep = "manifestctl.step-"
)

// cgroups makes cgroups of steps. The zero value looks for the place when it is first asked.
type cgroups struct {
	once sync.Once
	dir  string // ours, which steps' are made in
	have map[string]bool
	err  error // why there are none

	mu   sync.Mutex // guards n and undo
	n    int
	undo func()
}

func (c *cgroups) open() error {
	c.once.Do(func() {
		var dir string
		if dir, c.err = ownCgroup(); c.err == nil {
			c.err = c.enable(dir)
		}
	})
	return c.err
}

// ownCgroup is the directory of this process's cgroup.
func ownCgroup() (string, error) {
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path := ""
	for line := range strings.Lines(string(group)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	if path == "" {
		return "", errors.New("cgroup version 2 is not used here")
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	return cgroupDir(bufio.NewScanner(f), path)
}

// cgroupDir finds the directory of a cgroup in the lines of mountinfo.
func cgroupDir(mounts *bufio.Scanner, path string) (string, error) {
	for mounts.Scan() {
		// 31 24 0:27 ROOT TARGET options - cgroup2 cgroup2 rw
		before, after, ok := strings.Cut(mounts.Text(), " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		rel, err := filepath.Rel(f[3], path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue // another part of the tree
		}
		return filepath.Join(f[4], rel), nil
	}
	if err := mounts.Err(); err != nil {
		return "", err
	}
	return "", errors.New("cgroup version 2 is not mounted")
}

// wanted are the controllers that steps are bounded by. One that is missing is made up for by watching.
var wanted = []string{"memory", "pids", "cpu"}

// enable turns the controllers on for children of dir.
func (c *cgroups) enable(dir string) error {
	read := func(name string) ([]string, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		return strings.Fields(string(b)), err
	}
	there, err := read("cgroup.controllers")
	if err != nil {
		return err
	}
	c.have = map[string]bool{}
	var names []string
	for _, name := range wanted {
		if slices.Contains(there, name) {
			c.have[name] = true
			names = append(names, "+"+name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("cgroup %s has none of the controllers %s", dir, strings.Join(wanted, ", "))
	}
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(dir, file), unix.W_OK); err != nil {
			return fmt.Errorf("cgroup %s is not delegated to this user: %w", dir, err)
		}
	}
	on, err := read("cgroup.subtree_control")
	if err != nil {
		return err
	}
	c.dir = dir
	if !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(on, n[1:]) }) {
		return nil
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	value := strings.Join(names, " ")
	err = os.WriteFile(control, []byte(value), 0)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	back, err := stepAside(dir)
	if err == nil {
		err = os.WriteFile(control, []byte(value), 0)
	}
	if err != nil {
		back()
		return err
	}
	c.undo = func() {
		_ = os.WriteFile(control, []byte(strings.ReplaceAll(value, "+", "-")), 0) // a child of others may need them
		back()
	}
	return nil
}

// stepAside moves the processes of a cgroup into a child of it, which must all be this program's.
func stepAside(dir string) (back func(), err error) {
	self := filepath.Join(dir, cgroupSelf)
	back = func() {
		pids, _ := pidsOf(self)
		for _, pid := range pids {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		_ = os.Remove(self)
	}
	if err := os.Mkdir(self, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return back, err
	}
	for range 10 { // while agents start
		pids, err := pidsOf(dir)
		if err != nil {
			return back, err
		}
		if len(pids) == 0 {
			return back, nil
		}
		for _, pid := range pids {
			if !descends(pid, os.Getpid()) {
				return back, fmt.Errorf("cgroup %s has other processes than this program (%d)", dir, pid)
			}
		}
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(self, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return back, err
			}
		}
	}
	return back, fmt.Errorf("cgroup %s: %w", dir, unix.EBUSY)
}

func pidsOf(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// descends reports whether pid is of the family of ancestor.
func descends(pid, ancestor int) bool {
	for range 64 {
		if pid == ancestor {
			return true
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) // it ended: nobody's
		}
		_, rest, ok := strings.Cut(string(b)[strings.LastIndexByte(string(b), ')')+1:], " ") // "PID (NAME) STATE PPID"
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(f[1]); err != nil || pid <= 1 {
			return false
		}
	}
	return false
}

// cgroup is that of one step.
type cgroup struct {
	dir   string
	procs *os.File
	r     Resources
}

// make makes a cgroup with what of r it can bound, and takes that out of r. There is none when nothing is left for it.
func (c *cgroups) make(r *Resources) (*cgroup, error) {
	if r.Memory == 0 && r.PIDs == 0 && r.CPUs == 0 || c.open() != nil {
		return nil, nil
	}
	g := &cgroup{}
	files := map[string]string{}
	if r.Memory > 0 && c.have["memory"] {
		g.r.Memory, r.Memory = r.Memory, 0
		files["memory.max"] = strconv.FormatInt(g.r.Memory, 10)
		files["memory.swap.max"] = "0"
		files["memory.oom.group"] = "1"
	}
	if r.PIDs > 0 && c.have["pids"] {
		g.r.PIDs, r.PIDs = r.PIDs, 0
		files["pids.max"] = strconv.FormatInt(g.r.PIDs, 10)
	}
	if r.CPUs > 0 && c.have["cpu"] {
		g.r.CPUs, r.CPUs = r.CPUs, 0
		files["cpu.max"] = fmt.Sprintf("%d 100000", max(g.r.CPUs*100, 1000)) // µs; a millisecond is the least
	}
	if len(files) == 0 {
		return nil, nil
	}
	c.mu.Lock()
	c.n++
	g.dir = filepath.Join(c.dir, fmt.Sprintf("%s%d-%d", cgroupStep, os.Getpid(), c.n))
	c.mu.Unlock()
	err := os.Mkdir(g.dir, 0o755)
	for name, value := range files {
		if err != nil {
			break
		}
		err = os.WriteFile(filepath.Join(g.dir, name), []byte(value), 0)
		if errors.Is(err, os.ErrNotExist) && name != "memory.max" { // no swap accounting
			err = nil
		}
	}
	if err == nil {
		g.procs, err = os.OpenFile(filepath.Join(g.dir, "cgroup.procs"), os.O_WRONLY, 0)
	}
	if err != nil {
		g.remove()
		return nil, fmt.Errorf("%w: a cgroup for a step: %w", ErrHost, err)
	}
	return g, nil
}

// exceeded says which bound a step that failed went over; "" is none.
func (g *cgroup) exceeded(exit *ExitError) string {
	switch {
	case g.r.Memory > 0 && g.event("memory.events", "oom_kill") > 0:
		return fmt.Sprintf("out of memory: it used more than %s (--memory)", sizeText(g.r.Memory))
	case g.r.PIDs > 0 && exit.Signal == "" && g.event("pids.events", "max") > 0:
		return fmt.Sprintf("too many processes: it wanted more than %d, with their threads (--pids)", g.r.PIDs)
	}
	return ""
}

func (g *cgroup) event(file, key string) int64 {
	b, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0
	}
	return field(append([]byte("\n"), b...), key+" ")
}

// remove kills what is left in it, which is nothing unless an agent died, and removes it.
func (g *cgroup) remove() {
	if g.procs != nil {
		g.procs.Close()
	}
	_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) // linux 5.14
	for range 100 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond) // the killed have not ended yet
	}
}

// close undoes what was changed outside of steps' cgroups.
func (c *cgroups) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.undo != nil {
		c.undo()
		c.undo = nil
	}
}

// Watched says why what of r a cgroup would bound is kept by watching steps instead, which sees them a moment too late; nil
// when nothing is. `doctor` names the mend.
func (p *Pool) Watched(r Resources) error {
	if r.Memory == 0 && r.PIDs == 0 && r.CPUs == 0 {
		return nil
	}
	if err := p.cgroups.open(); err != nil {
		return err
	}
	for _, l := range []struct {
		on   bool
		name string
	}{{r.Memory > 0, "memory"}, {r.PIDs > 0, "pids"}, {r.CPUs > 0, "cpu"}} {
		if l.on && !p.cgroups.have[l.name] {
			return fmt.Errorf("cgroup %s has no controller %q", p.cgroups.dir, l.name)
		}
	}
	return nil
}

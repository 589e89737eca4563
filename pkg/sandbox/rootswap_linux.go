package sandbox

// This file lends the root file system of this container to a step: what the container has in it is moved aside, the step's tree is moved
// in, and after the step both go back. Who is not trusted: the tree, and what a step left. Every directory is opened beneath the one
// above it without following links; nothing is ever looked up by a name that a tree could have made.
//
// What stays where it is: mount points with the directories above them (which are merged, as nothing else can be done with them),
// the directory that all this is kept in, and what the caller names (its store). A process may be killed between any two
// calls, so a journal says what the root is being made to hold, and every move can be begun again: whoever is left, or comes next, finishes.
// That is about processes that die. Nothing is synced: a container that loses its power is made anew.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// swapDir is the directory below the root for what is aside. A step can see it.
const swapDir = ".manifestctl-inplace"

// What is in it. Only root comes below "private".
const (
	swapHome      = "private/own"   // what the container has
	swapTrees     = "private/trees" // for trees of steps
	swapWreck     = "private/wreck" // what a step left whose tree nobody wants
	swapHosts     = "private/hosts" // /etc/hosts as it was
	swapJournal   = "private/journal"
	swapEmulators = "emulators"
	swapProgram   = "manifestctl" // this program, for as long as its own name is aside
)

// phase is what is being done to the root.
type phase string

const (
	phaseOwn    phase = ""       // it has what is the container's
	phaseAside  phase = "aside"  // that is being moved away; nothing of a step is there
	phaseStep   phase = "step"   // all of that is away; what is there is a step's
	phaseReturn phase = "return" // all of the step's is away; the container's comes back
)

// journal says what a process that was killed has left.
type journal struct {
	Phase phase    `json:"phase"`
	Keep  []string `json:"keep"` // names that were left where they are
}

// rootSwap is a root that is lent to steps.
type rootSwap struct {
	root string // "/", another in tests
	keep []string
	// mounts are the mount points of now; nil: those of keep.
	mounts func() ([]string, error)
	points []string // that were there when a tree came in
	now    journal
	lock   int // held by the process whose steps they are, or by its agent
}

func (w *rootSwap) path(name string) string { return filepath.Join(w.root, swapDir, name) }

// enter moves the container's own files aside and those of tree in.
func (w *rootSwap) enter(tree string) error {
	if w.mounts != nil { // there may be others by now
		points, err := w.mounts()
		if err != nil {
			return err
		}
		w.points = points
		for _, p := range points {
			if !slices.Contains(w.keep, p) {
				w.keep = append(w.keep, p)
			}
		}
	}
	k := newKept(w.keep)
	root, err := readDir(w.root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	from, err := readDir(tree)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := fits(from, k, ""); err != nil {
		return err
	}
	private, err := readDir(w.path("private"))
	if err != nil {
		return err
	}
	defer unix.Close(private)
	if err := w.write(phaseAside); err != nil {
		return err
	}
	if err := twin(root, private, filepath.Base(swapHome)); err != nil {
		return err
	}
	own, err := readDir(w.path(swapHome))
	if err != nil {
		return err
	}
	defer unix.Close(own)
	if err := gather(root, own, k, true); err != nil {
		return fmt.Errorf("moving what this container has aside: %w", err)
	}
	if err := w.write(phaseStep); err != nil {
		return err
	}
	if err := spreadOut(from, root, k, false); err != nil {
		return fmt.Errorf("moving the step's files in: %w", err)
	}
	return nil
}

// leave moves the step's files back to tree and the container's own ones in.
func (w *rootSwap) leave(tree string) error {
	if w.now.Phase != phaseStep {
		_, err := w.restore()
		return err
	}
	err := w.gatherTo(tree)
	if err != nil {
		err = fmt.Errorf("moving the step's files out: %w", err)
	} else {
		err = w.write(phaseReturn)
	}
	_, restoreErr := w.restore() // clears away what was not moved
	return errors.Join(err, restoreErr)
}

func (w *rootSwap) gatherTo(tree string) error {
	root, err := readDir(w.root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	to, err := readDir(tree)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return gather(root, to, newKept(w.now.Keep), false)
}

// restore gives the container its root back, whatever a process that was killed was about to do. It says whether there was anything to do.
func (w *rootSwap) restore() (bool, error) {
	b, err := os.ReadFile(w.path(swapJournal))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &w.now)
	}
	if err != nil {
		return false, fmt.Errorf("reading the journal: %w", err)
	}
	was := w.now.Phase
	for _, name := range w.keep {
		if !slices.Contains(w.now.Keep, name) {
			w.now.Keep = append(w.now.Keep, name)
		}
	}
	switch w.now.Phase {
	case phaseOwn:
		return false, nil
	case phaseStep:
		wreck, err := w.freshWreck()
		if err != nil {
			return true, err
		}
		if err := w.gatherTo(wreck); err != nil {
			return true, fmt.Errorf("clearing the root: %w", err)
		}
	case phaseAside, phaseReturn:
	default:
		return false, fmt.Errorf("%w: the journal has the phase %q", ErrHost, was)
	}
	if err := w.write(phaseReturn); err != nil {
		return true, err
	}
	if err := w.back(); err != nil {
		return true, err
	}
	return true, w.write(phaseOwn)
}

// back moves the container's own files to where they were.
func (w *rootSwap) back() error {
	if saved, err := os.ReadFile(w.path(swapHosts)); err == nil {
		_ = os.WriteFile(filepath.Join(w.root, "etc/hosts"), saved, 0o644) // its engine's, who may not let us now
		_ = os.Remove(w.path(swapHosts))
	}
	own, err := readDir(w.path(swapHome))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // killed before anything was moved
	}
	if err != nil {
		return err
	}
	defer unix.Close(own)
	root, err := readDir(w.root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := spreadOut(own, root, newKept(w.now.Keep), true); err != nil {
		return fmt.Errorf("moving what this container has back: %w", err)
	}
	return os.Remove(w.path(swapHome))
}

func (w *rootSwap) freshWreck() (string, error) {
	for i := range 1 << 20 {
		dir := w.path(swapWreck + strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
	return "", fs.ErrExist
}

// write puts the journal in its place in one step.
func (w *rootSwap) write(p phase) error {
	j := journal{Phase: p, Keep: w.now.Keep}
	if p == phaseAside {
		j.Keep = w.keep
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	name := w.path(swapJournal)
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	betweenMoves()
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	w.now = j
	betweenMoves()
	return nil
}

// hosts makes /etc/hosts of the container, which cannot be moved, what the step is to see.
func (w *rootSwap) hosts(text []byte) error {
	name := filepath.Join(w.root, "etc/hosts")
	was, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path(swapHosts)+".new", was, 0o600); err != nil {
		return err
	}
	if err := os.Rename(w.path(swapHosts)+".new", w.path(swapHosts)); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// claim makes the directory of a swap, which is then this process's alone, and gives a root back that a process left which was killed.
func (w *rootSwap) claim() (restored bool, err error) {
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{"", 0o711}, {"private", 0o700}, {swapTrees, 0o700}, {swapEmulators, 0o755}} {
		if err := os.Mkdir(w.path(d.name), d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, fmt.Errorf("%w: steps in place need a root file system that can be written to: %w: %s", ErrHost, err, mendRoot(err))
		}
	}
	if w.lock, err = lockFile(w.path("private/lock"), 0); err != nil {
		return false, fmt.Errorf("%w: %s: another build has this container's root: %w", ErrHost, w.path(""), err)
	}
	// Who was its agent may be at it still.
	agents, err := lockFile(w.path("private/agent"), time.Minute)
	if err != nil {
		return false, errors.Join(fmt.Errorf("%w: %s: an agent of another build has this container's root: %w", ErrHost, w.path(""), err), unix.Close(w.lock))
	}
	defer unix.Close(agents)
	if restored, err = w.restore(); err != nil {
		return false, errors.Join(fmt.Errorf("%w: giving this container its files back, which are in %s: %w", ErrHost, w.path(swapHome), err), unix.Close(w.lock))
	}
	return restored, w.fresh()
}

// fresh removes what others left and makes what is needed.
func (w *rootSwap) fresh() error {
	left, err := filepath.Glob(w.path("private/*"))
	if err != nil {
		return err
	}
	for _, name := range append(left, w.path(swapProgram)) {
		switch filepath.Base(name) {
		case "lock", "agent", "journal":
			continue
		}
		if err := remove(name); err != nil {
			return err
		}
	}
	return os.Mkdir(w.path(swapTrees), 0o700)
}

// keepProgram makes this program reachable while its own name may not be. It is in no step's tree.
func (w *rootSwap) keepProgram() {
	if name, err := os.Readlink("/proc/self/exe"); err == nil {
		// It fails where the program is on another file system, which is a mount point that stays.
		_ = os.Link(name, w.path(swapProgram))
	}
}

// end removes the directory; the root is the container's again.
func (w *rootSwap) end() error {
	_, err := w.restore()
	if err == nil {
		err = remove(w.path(""))
	}
	return errors.Join(err, unix.Close(w.lock))
}

// lockFile takes the lock of a file. It waits for at most as long.
func lockFile(name string, patience time.Duration) (int, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	const pause = 10 * time.Millisecond
	for {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return fd, nil
		}
		if patience -= pause; patience < 0 {
			unix.Close(fd)
			return -1, err
		}
		time.Sleep(pause)
	}
}

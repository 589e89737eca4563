package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// liftDepth is how deep directories may lie before they are moved up to be removed: every level costs a descriptor.
const liftDepth = 128

// remove deletes a tree. Root of the namespace that made it needs no permission on its directories. A step can make
// trees deeper than there are descriptors.
func remove(dir string) error {
	err := os.RemoveAll(dir)
	for n := 0; errors.Is(err, unix.EMFILE); {
		lifted, liftErr := lift(dir, &n)
		if liftErr != nil {
			return fmt.Errorf("removing a tree: %w", liftErr)
		}
		if err = os.RemoveAll(dir); err != nil && lifted == 0 {
			break // all descriptors are used elsewhere
		}
	}
	if err != nil {
		return fmt.Errorf("removing a tree: %w", err)
	}
	return nil
}

// lift moves directories that lie liftDepth deep up into dir itself, under names counted by n.
func lift(dir string, n *int) (lifted int, err error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(root)
	var walk func(fd, depth int) error
	walk = func(fd, depth int) error {
		names, err := subdirs(fd)
		if err != nil {
			return err
		}
		for _, name := range names {
			if depth == liftDepth {
				*n++
				lifted++
				if err := unix.Renameat(fd, name, root, ".lifted-"+strconv.Itoa(*n)); err != nil {
					return err
				}
				continue
			}
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = walk(sub, depth+1)
			unix.Close(sub)
			if err != nil {
				return err
			}
		}
		return nil
	}
	return lifted, walk(root, 0)
}

// subdirs lists the directories in the directory fd, which stays open.
func subdirs(fd int) ([]string, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	es, err := f.ReadDir(-1)
	var names []string
	for _, e := range es {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

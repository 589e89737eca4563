//go:build unix

package source

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// statOf is what tells that a file changed, which file it is, and how many names it has.
func statOf(info fs.FileInfo) (st fileStat, id fileID, links uint64) {
	st = fileStat{Size: info.Size(), Mtime: info.ModTime().UnixNano()}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return st, id, 1
	}
	st.Ctime, st.Inode, st.Dev = ctimeOf(s), uint64(s.Ino), uint64(s.Dev)
	return st, fileID{uint64(s.Dev), uint64(s.Ino)}, uint64(s.Nlink)
}

func deviceOf(info fs.FileInfo) (major, minor int64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return int64(unix.Major(uint64(s.Rdev))), int64(unix.Minor(uint64(s.Rdev)))
}

// openRegular opens a file for reading and never waits for a fifo.
func openIn(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

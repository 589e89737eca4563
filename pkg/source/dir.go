package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// files are the regular files of a layout, by clean slash-separated names. Missing ones are fs.ErrNotExist.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// dirFiles is a directory. Links and special files in it are refused: a layout
// has none, and what they lead to is not part of it (ROBUSTNESS.md d11, g11).
type dirFiles struct{ root *os.Root }

func openDir(path string) (files, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	case err != nil:
		return nil, err
	case info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is a file and no directory: name an archive with the prefix oci-archive: or docker-archive: before it", ErrInvalid, path)
	case !info.IsDir():
		return nil, fmt.Errorf("%w: %s is no directory", ErrInvalid, path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return dirFiles{root}, nil
}

func (d dirFiles) Close() error { return d.root.Close() }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	native := filepath.FromSlash(name)
	for dir := filepath.Dir(native); dir != "."; dir = filepath.Dir(dir) {
		if info, err := d.root.Lstat(dir); err == nil && !info.IsDir() {
			return nil, 0, fmt.Errorf("%w: %s is no directory but %s", ErrInvalid, filepath.ToSlash(dir), kindOf(info))
		}
	}
	before, err := d.root.Lstat(native)
	if err != nil {
		return nil, 0, err
	}
	if !before.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%w: %s is no regular file but %s", ErrInvalid, name, kindOf(before))
	}
	// A FIFO that takes the file's place now must not hang us.
	f, err := d.root.OpenFile(native, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%w: %s was replaced while it was opened", ErrInvalid, name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, after.Size(), nil
}

func kindOf(info fs.FileInfo) string {
	switch m := info.Mode(); {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	default:
		return "a file"
	}
}

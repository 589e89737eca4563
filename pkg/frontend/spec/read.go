package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSpec is the largest spec that is read, in bytes.
const maxSpec = 4 << 20

// readSpec reads the spec. One that lies in the context is opened beneath it, so that a symlink
// of a foreign checkout shows nothing of the rest of this machine in an error's excerpt.
func readSpec(file, contextDir string) ([]byte, error) {
	bad := func(hint, format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		return &Error{File: file, Message: err.Error(), Hint: hint, Err: errors.Unwrap(err)}
	}
	open := func() (fs.FileInfo, func() (*os.File, error), error) {
		info, err := os.Stat(file)
		return info, func() (*os.File, error) { return os.Open(file) }, err
	}
	if name, ok := within(contextDir, file); ok {
		root, err := os.OpenRoot(contextDir)
		if err != nil {
			return nil, bad("", "opening the context: %w", err)
		}
		defer root.Close()
		open = func() (fs.FileInfo, func() (*os.File, error), error) {
			info, err := root.Stat(name)
			return info, func() (*os.File, error) { return root.Open(name) }, err
		}
	}
	info, get, err := open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, bad("name a spec with -f FILE", "no such file%w", silent{err})
	case err != nil:
		return nil, bad("", "reading the spec: %w", err)
	case !info.Mode().IsRegular():
		return nil, bad("", "the spec is %s, not a regular file", typeName(info.Mode()))
	}
	f, err := get()
	if err != nil {
		return nil, bad("", "reading the spec: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return nil, bad("", "reading the spec: %w", err)
	}
	if len(text) > maxSpec {
		return nil, bad("put large contents in files of the context", "the spec is larger than %d MiB", maxSpec>>20)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), nil
}

// silent is a cause whose text is in the message already.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// within returns the name of file relative to dir when it lies in it by name.
func within(dir, file string) (string, bool) {
	d, err := filepath.Abs(dir)
	if err != nil {
		return "", false
	}
	f, err := filepath.Abs(file)
	if err != nil {
		return "", false
	}
	rel, err := filepath.Rel(d, f)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) || rel == "." {
		return "", false
	}
	return rel, true
}

// typeName names a file's type for people.
func typeName(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "a regular file"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a fifo"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

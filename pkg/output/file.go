package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// file is where one stream of bytes goes: a file that is replaced as a whole, a device or
// fifo that is written to, or stdout.
type file struct {
	path   string // "": stdout
	shown  string // as the user wrote it
	direct bool   // no regular file: it cannot be replaced
	stdout io.Writer
}

// openFile checks where s.Dest leads.
func openFile(s Spec, env Env) (file, error) {
	if s.Dest == "-" {
		switch {
		case env.Stdout == nil:
			return file{}, invalid("dest=-: there is no standard output")
		case isTerminal(env.Stdout):
			return file{}, invalid("a tar is not written to a terminal: redirect the output, or give dest=FILE")
		}
		return file{stdout: env.Stdout, shown: "standard output"}, nil
	}
	if s.Dest == "" {
		return file{}, invalid("dest=FILE is missing")
	}
	f := file{path: inDir(env.Dir, s.Dest), shown: s.Dest}
	info, err := os.Stat(f.path)
	switch {
	case err == nil && info.IsDir(), err != nil && os.IsPathSeparator(s.Dest[len(s.Dest)-1]):
		hint := "name a file"
		if s.Type == "oci" {
			hint += ", or add tar=false for a directory"
		}
		return file{}, invalid("dest=%s is a directory: %s", s.Dest, hint)
	case err == nil && !info.Mode().IsRegular():
		f.direct = true
		return f, nil
	case err == nil: // what a link leads to is replaced, not the link
		if f.path, err = filepath.EvalSymlinks(f.path); err != nil {
			return file{}, fmt.Errorf("dest=%s: %w", s.Dest, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return file{}, fmt.Errorf("dest=%s: %w", s.Dest, err)
	}
	return f, checkWritable(filepath.Dir(f.path), s.Dest)
}

// inDir makes a path of the command line absolute to dir.
func inDir(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// checkWritable tries whether a file can be made in dir: modes do not tell, for a file system can be read-only.
func checkWritable(dir, shown string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return invalid("dest=%s: there is no directory %s: make it first", shown, dir)
	case err != nil:
		return fmt.Errorf("dest=%s: %w", shown, err)
	case !info.IsDir():
		return invalid("dest=%s: %s is not a directory", shown, dir)
	}
	f, err := createTemp(filepath.Join(dir, "probe"))
	if err != nil {
		return fmt.Errorf("dest=%s cannot be written: %w", shown, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// createTemp makes a new file beside path, with the permissions a new file has.
func createTemp(path string) (*os.File, error) {
	for n := 0; ; n++ {
		f, err := os.OpenFile(tempName(path, n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil || !errors.Is(err, fs.ErrExist) || n > 1000 {
			return f, err
		}
	}
}

// tempName is the n-th name for something that will be called path.
func tempName(path string, n int) string {
	dir, base := filepath.Split(path)
	if len(base) > 100 {
		base = base[:100]
	}
	return dir + "." + base + tempMark + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(n)
}

const tempMark = ".manifestctl-"

// isTempName reports whether a name is one of tempName's.
func isTempName(name string) bool { return name[0] == '.' && strings.Contains(name, tempMark) }

// write calls fn with where the bytes go. A file appears under its name when fn returned nil and all is on disk.
func (f file) write(fn func(w io.Writer) error) (err error) {
	defer func() {
		if err != nil && f.shown != "" && !strings.Contains(err.Error(), f.shown) {
			err = fmt.Errorf("writing %s: %w", f.shown, err)
		}
	}()
	if f.path == "" {
		return fn(f.stdout)
	}
	if f.direct {
		out, err := os.OpenFile(f.path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fn(out), out.Close())
	}
	return replace(f.path, fn)
}

// replace writes a file beside path and renames it.
func replace(path string, fn func(w io.Writer) error) (err error) {
	tmp, err := createTemp(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(tmp.Close()))
			_ = os.Remove(tmp.Name()) // what is left of it is of no use, and err says why
		}
	}()
	if info, err := os.Stat(path); err == nil { // who replaces a file leaves who may read it
		if err := tmp.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if err := fn(tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// directory is a directory that is made when it is missing.
type directory struct{ path, shown string }

// openDirectory checks where s.Dest leads. check looks at the entries of a directory that is there.
func openDirectory(s Spec, env Env, check func(path string, entries []os.DirEntry) error) (directory, error) {
	if s.Dest == "" || s.Dest == "-" {
		return directory{}, invalid("dest=DIR is missing")
	}
	d := directory{path: inDir(env.Dir, s.Dest), shown: s.Dest}
	info, err := os.Stat(d.path)
	switch {
	case err == nil && !info.IsDir():
		return d, invalid("dest=%s is not a directory", s.Dest)
	case err == nil:
		entries, err := os.ReadDir(d.path)
		if err != nil {
			return d, fmt.Errorf("dest=%s: %w", s.Dest, err)
		}
		if check != nil {
			if err := check(d.path, entries); err != nil {
				return d, err
			}
		}
		return d, checkWritable(d.path, s.Dest)
	case !errors.Is(err, fs.ErrNotExist):
		return d, fmt.Errorf("dest=%s: %w", s.Dest, err)
	}
	if info, err := os.Lstat(d.path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return d, invalid("dest=%s is a link that leads nowhere", s.Dest)
	}
	parent := filepath.Dir(d.path) // missing parents are made with it
	for {
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) || parent == filepath.Dir(parent) {
			break
		}
		parent = filepath.Dir(parent)
	}
	return d, checkWritable(parent, s.Dest)
}

// fill calls fn with the directory to write into. One that was not there appears when fn returned nil; one that
// was is written in place, fn taking care of what is in it.
func (d directory) fill(ctx context.Context, fn func(dir string) error) (err error) {
	defer func() {
		if err != nil && !strings.Contains(err.Error(), d.shown) {
			err = fmt.Errorf("writing %s: %w", d.shown, err)
		}
	}()
	if _, err := os.Stat(d.path); err == nil {
		return fn(d.path)
	}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o777); err != nil {
		return err
	}
	staging, err := mkdirTemp(d.path)
	if err != nil {
		return err
	}
	err = fn(staging)
	if err == nil {
		if err = os.Rename(staging, d.path); err == nil {
			return nil
		}
		if info, statErr := os.Stat(d.path); statErr == nil && info.IsDir() { // somebody else was first
			err = fn(d.path)
		}
	}
	return errors.Join(err, removeTree(staging))
}

func mkdirTemp(path string) (string, error) {
	for n := 0; ; n++ {
		name := tempName(path, n)
		err := os.Mkdir(name, 0o777)
		if err == nil || !errors.Is(err, fs.ErrExist) || n > 1000 {
			return name, err
		}
	}
}

// removeTree removes a directory whose modes may forbid it.
func removeTree(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700) // RemoveAll says it if this did not help
		}
		return nil
	})
	return os.RemoveAll(dir)
}

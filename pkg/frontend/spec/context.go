package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// mainContext is the name of the directory that a build is started with.
const mainContext = "context"

const (
	ignoreName = ".dockerignore"
	maxIgnore  = 4 << 20 // bytes
	maxHops    = 40      // symlinks on the way to one source, as Linux allows
)

// contextDir is a directory of sources: its names and types, through a root that
// nothing leaves, and what its .dockerignore leaves out.
type contextDir struct {
	name, dir string
	root      *os.Root
	patterns  []string
	ignore    *patternmatcher.PatternMatcher // nil: nothing is ignored
	walks     map[string][]found             // what walk found, by directory and pattern
}

// openContext opens a directory and reads its .dockerignore.
func openContext(name, dir string) (*contextDir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &Error{File: dir, Message: fmt.Sprintf("opening the %s directory: %v", name, cause(err)), Err: err}
	}
	c := &contextDir{name: name, dir: dir, root: root, walks: map[string][]found{}}
	if err := c.readIgnore(); err != nil {
		root.Close()
		return nil, err
	}
	return c, nil
}

// cause is the reason of a path error without the path, which the message names already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (c *contextDir) readIgnore() error {
	file := filepath.Join(c.dir, ignoreName)
	bad := func(line int, excerpt string, err error, format string, args ...any) error {
		return &Error{File: file, Line: line, Column: 1, Message: clean(fmt.Sprintf(format, args...)), Excerpt: excerpt, Err: err}
	}
	info, err := c.root.Stat(ignoreName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if info, err := c.root.Lstat(ignoreName); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return bad(0, "", nil, "a symbolic link to what does not exist")
		}
		return nil
	case err != nil:
		return bad(0, "", err, "reading it: %v", cause(err))
	case !info.Mode().IsRegular():
		return bad(0, "", nil, "%s, not a regular file", typeName(info.Mode()))
	case info.Size() > maxIgnore:
		return bad(0, "", nil, "larger than %d MiB", maxIgnore>>20)
	}
	f, err := c.root.Open(ignoreName)
	if err != nil {
		return bad(0, "", err, "reading it: %v", cause(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxIgnore))
	if err != nil {
		return bad(0, "", err, "reading it: %v", cause(err))
	}
	if c.patterns, err = ignorefile.ReadAll(bytes.NewReader(text)); err != nil {
		return bad(0, "", err, "reading it: %v", err)
	}
	if len(c.patterns) == 0 {
		return nil
	}
	if c.ignore, err = patternmatcher.New(c.patterns); err == nil {
		_, err = c.ignore.MatchesOrParentMatches("x") // compiles every pattern
	}
	if err != nil {
		for i, line := range strings.Split(string(text), "\n") {
			one, readErr := ignorefile.ReadAll(strings.NewReader(line))
			if readErr != nil || len(one) == 0 {
				continue
			}
			pm, lineErr := patternmatcher.New(one)
			if lineErr == nil {
				_, lineErr = pm.MatchesOrParentMatches("x")
			}
			if lineErr != nil {
				return bad(i+1, strings.TrimSuffix(line, "\r"), lineErr, "%q is not a pattern: %v", one[0], lineErr)
			}
		}
		return bad(0, "", err, "%v", err)
	}
	return nil
}

// ignored reports whether .dockerignore leaves a file out, or a directory with all that is in it. Names
// are slash separated and clean.
func (c *contextDir) ignored(name string, isDir bool) bool {
	if c.ignore == nil || name == "." || isDir && c.ignore.Exclusions() {
		return false
	}
	m, err := c.ignore.MatchesOrParentMatches(filepath.FromSlash(name))
	return err == nil && m
}

// Problems of a source; the planner says where it is named.
var (
	errEscapes = errors.New("leaves the context through a symbolic link")
	errLoop    = errors.New("has too many symbolic links")
)

// resolve follows the symlinks of name, which is clean and relative, and returns where
// it really is and what is there. Nothing outside of the context is looked at.
func (c *contextDir) resolve(name string) (string, fs.FileInfo, error) {
	done, hops := ".", 0 // done has no symlinks, so that its ".." is its parent
	todo := strings.Split(name, "/")
	info, err := c.root.Lstat(".")
	for len(todo) > 0 && err == nil {
		head := todo[0]
		todo = todo[1:]
		if head == "" || head == "." {
			continue
		}
		if !info.IsDir() {
			return "", nil, fs.ErrNotExist
		}
		next := path.Join(done, head)
		if head == ".." && done == "." {
			return "", nil, errEscapes
		}
		if info, err = c.root.Lstat(filepath.FromSlash(next)); err != nil {
			break
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if hops++; hops > maxHops {
			return "", nil, errLoop
		}
		var target string
		if target, err = c.root.Readlink(filepath.FromSlash(next)); err != nil {
			break
		}
		if filepath.IsAbs(target) || strings.HasPrefix(filepath.ToSlash(target), "/") {
			return "", nil, errEscapes
		}
		todo = append(strings.Split(filepath.ToSlash(target), "/"), todo...)
		info, err = c.root.Lstat(filepath.FromSlash(done))
	}
	if err != nil {
		return "", nil, cause(err)
	}
	return done, info, nil
}

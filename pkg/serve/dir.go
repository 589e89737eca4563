package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
)

// The layout of a registry's directory:
//
//	registry.json                           what this directory is
//	lock                                    held by the process that serves it
//	blobs/ALGORITHM/HEX                     content, of all repositories
//	repos/NAME/_blobs/ALGORITHM/HEX         empty: the repository has this blob
//	repos/NAME/_manifests/ALGORITHM/HEX     a descriptor: the repository has this manifest
//	repos/NAME/_tags/TAG                    a descriptor
//	repos/NAME/_referrers/ALGORITHM/HEX/ALGORITHM-HEX  descriptor of what refers to the first digest
//	uploads/                                unfinished; emptied at the start
//
// No part of a repository's name begins with '_', so that the names inside a
// repository and below it do not meet. Content without a repository is removed
// at the start, and after deletes.
const (
	markFile     = "registry.json"
	lockFile     = "lock"
	blobsDir     = "blobs"
	reposDir     = "repos"
	uploadsDir   = "uploads"
	linksDir     = "_blobs"
	manifestsDir = "_manifests"
	tagsDir      = "_tags"
	referrersDir = "_referrers"
)

const mark = `{"layout":"manifestctl registry","version":1}` + "\n"

// directory is a storage on disk of its own.
type directory struct {
	root string
	lock *flock.Flock
	log  *slog.Logger

	// content is held shared while a repository gets something, from the look at
	// the bytes until they are its own, and alone while bytes are removed.
	content sync.RWMutex
	arrive  keyedLocks // one at a time for each digest
}

var _ storage = (*directory)(nil)

// openDir opens a registry's directory, making it when it is missing or empty.
func openDir(ctx context.Context, root string, readOnly bool, log *slog.Logger) (_ *directory, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	d := &directory{root: root, log: log}
	if err := d.claim(readOnly); err != nil {
		return nil, fmt.Errorf("registry directory %s: %w", root, err)
	}
	if readOnly {
		return d, nil
	}
	d.lock = flock.New(filepath.Join(root, lockFile), flock.SetPermissions(fileMode))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // a process that is ending
	defer cancel()
	got, err := d.lock.TryLockContext(ctx, 50*time.Millisecond)
	if !got {
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: another process serves it", ErrInUse)
		}
		return nil, fmt.Errorf("registry directory %s: %w", root, err)
	}
	if err := d.prepare(); err != nil {
		_ = d.lock.Unlock()
		return nil, fmt.Errorf("registry directory %s: %w", root, err)
	}
	return d, nil
}

// claim makes sure that the directory is a registry's.
func (d *directory) claim(readOnly bool) error {
	if !readOnly {
		if err := os.MkdirAll(filepath.Dir(d.root), 0o777); err != nil { //nolint:gosec // as mkdir -p does
			return err
		}
		if err := makeDir(d.root); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(d.path(markFile))
	switch {
	case err == nil:
		return checkMark(data)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile && !strings.HasPrefix(e.Name(), tmpPrefix) {
			return fmt.Errorf("%w: it is not empty and has no %s; give an empty or a new directory", ErrNotRegistry, markFile)
		}
	}
	if readOnly {
		return nil
	}
	return writeFile(d.path(markFile), []byte(mark))
}

func checkMark(data []byte) error {
	var m struct {
		Layout  string `json:"layout"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &m); err != nil || m.Layout != "manifestctl registry" {
		return fmt.Errorf("%w: %s says something else", ErrNotRegistry, markFile)
	}
	if m.Version != 1 {
		return fmt.Errorf("%w: it is of version %d, and this program knows 1", ErrNotRegistry, m.Version)
	}
	return nil
}

// prepare makes what every request needs and clears what a crash has left.
func (d *directory) prepare() error {
	if err := os.RemoveAll(d.path(uploadsDir)); err != nil {
		return err
	}
	for _, dir := range []string{blobsDir, reposDir, uploadsDir} {
		if err := makeDir(d.path(dir)); err != nil {
			return err
		}
	}
	if _, err := d.sweep(); err != nil {
		// Garbage costs space; deleting on a guess would cost content.
		d.log.Warn("content without a repository was not removed", "error", err)
	}
	return nil
}

// sweep removes content that no repository has.
func (d *directory) sweep() (freed int64, err error) {
	used := map[digest.Digest]bool{}
	err = filepath.WalkDir(d.path(reposDir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			return os.Remove(path)
		}
		algo := filepath.Dir(path)
		switch filepath.Base(filepath.Dir(algo)) {
		case linksDir, manifestsDir:
			used[digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(algo)), e.Name())] = true
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = filepath.WalkDir(d.path(blobsDir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || used[digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), e.Name())] {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if !strings.HasPrefix(e.Name(), tmpPrefix) { // what was never counted
			freed += fi.Size()
		}
		return nil
	})
	return freed, err
}

// Collect implements storage.
func (d *directory) Collect(context.Context) (int64, error) {
	d.content.Lock()
	defer d.content.Unlock()
	return d.sweep()
}

// Close releases the directory.
func (d *directory) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Unlock()
}

func (d *directory) path(parts ...string) string {
	return filepath.Join(append([]string{d.root}, parts...)...)
}

func (d *directory) repo(name string, parts ...string) string {
	return d.path(append([]string{reposDir, filepath.FromSlash(name)}, parts...)...)
}

func blobPath(dgst digest.Digest) string {
	return filepath.Join(dgst.Algorithm().String(), dgst.Encoded())
}

// HasRepo implements storage: a repository is there when something was pushed to it.
func (d *directory) HasRepo(_ context.Context, repo string) (bool, error) {
	for _, dir := range []string{manifestsDir, linksDir} {
		_, err := os.Stat(d.repo(repo, dir))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Repos implements storage.
func (d *directory) Repos(ctx context.Context) ([]string, error) {
	var repos []string
	root := d.path(reposDir)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // read-only, and nothing pushed yet
			return nil
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case strings.HasPrefix(e.Name(), "_"):
			if name, err := filepath.Rel(root, filepath.Dir(path)); err == nil && (e.Name() == manifestsDir || e.Name() == linksDir) {
				repos = append(repos, filepath.ToSlash(name))
			}
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(repos)
	return slices.Compact(repos), err
}

// unknown is errUnknown for what does not exist.
func unknown(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errUnknown
	}
	return err
}

// tagFile names a tag's file: upper case is marked, for file systems that fold case.
func tagFile(tag string) string {
	var b strings.Builder
	for _, c := range []byte(tag) {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('!')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// tagOfFile is the inverse of tagFile; ok is false for other files.
func tagOfFile(name string) (tag string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '!' {
			if i++; i == len(name) || name[i] < 'a' || name[i] > 'z' {
				return "", false
			}
			c = name[i] - 'a' + 'A'
		}
		b.WriteByte(c)
	}
	return b.String(), !strings.HasPrefix(name, ".")
}

// exists reports whether there is such a file.
func exists(name string) (bool, error) {
	_, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Usage implements storage.
func (d *directory) Usage(ctx context.Context) (int64, error) { return usage(ctx, d.path(blobsDir)) }

// usage is how many bytes the files below a directory have.
func usage(ctx context.Context, dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // nothing yet, or removed this moment
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !e.Type().IsRegular():
			return nil
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += fi.Size()
		}
		return err
	})
	return total, err
}

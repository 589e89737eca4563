package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// meta is what a layer would say of a directory.
type meta struct {
	mode     uint32
	uid, gid uint32
	mtime    unix.Timespec
	xattrs   map[string]string
	after    unix.Timespec // mtime once the stubs were made
}

// remember notes how dir and the directories above it are before a stub is made in dir, which copies them up.
func (t *tree) remember(dir string) error {
	for d := dir; ; d = path.Dir(d) {
		if _, ok := t.pre[d]; !ok {
			m, err := t.metaOf(d)
			if err != nil {
				return err
			}
			t.pre[d] = m
		}
		if d == "." {
			return nil
		}
	}
}

func (t *tree) metaOf(name string) (meta, error) {
	fd, err := unix.Openat(t.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return meta{}, err
	}
	defer unix.Close(fd)
	return readMeta(fd)
}

func readMeta(fd int) (meta, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return meta{}, err
	}
	xattrs, err := readXattrs(fd)
	if err != nil {
		return meta{}, err
	}
	return meta{mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: st.Mtim, xattrs: xattrs}, nil
}

// readXattrs reads all but overlayfs's own.
func readXattrs(fd int) (map[string]string, error) {
	n, err := unix.Flistxattr(fd, nil)
	if err != nil || n == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return nil, err
	}
	list := make([]byte, n)
	if n, err = unix.Flistxattr(fd, list); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "user.overlay.") || name == "" {
			continue
		}
		size, err := unix.Fgetxattr(fd, name, nil)
		if err != nil {
			return nil, err
		}
		val := make([]byte, size)
		if size > 0 {
			if size, err = unix.Fgetxattr(fd, name, val); err != nil {
				return nil, err
			}
		}
		out[name] = string(val[:size])
	}
	return out, nil
}

// stubsMade notes the times that making stubs left on their directories.
func (t *tree) stubsMade() error {
	for name, m := range t.pre {
		var st unix.Stat_t
		if err := unix.Fstatat(t.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("looking at /%s: %w", name, err)
		}
		m.after = st.Mtim
		t.pre[name] = m
	}
	return nil
}

// passing says that the standard directories on the way to a mount of the step do not stay: they were made for it.
func (t *tree) passing(mounts []Mount) {
	for i := range t.stubs {
		for _, m := range mounts {
			if !m.Silent && strings.HasPrefix(path.Clean("/"+m.Target), "/"+t.stubs[i].name+"/") {
				t.stubs[i].stays = false
			}
		}
	}
}

// removeStubs takes the stubs out of the upper directory when the overlay is gone: what is still empty goes; a
// directory that only they changed gets its time back, and leaves the layer when nothing else is in it. Names are
// opened again beneath upper: the step may have put links in their place.
func (t *tree) removeStubs(upper string) error {
	up, err := openDir(upper)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	changed := map[string]unix.Timespec{} // directory → mtime before we removed anything from it
	for _, s := range slices.Backward(t.stubs) {
		if s.parent >= 0 {
			removeEmpty(s.parent, path.Base(s.name), s.dir)
			unix.Close(s.parent)
			continue
		}
		dir := path.Dir(s.name)
		fd, err := openBeneath(up, dir)
		if err != nil {
			continue // the step removed or replaced it
		}
		if _, ok := changed[dir]; !ok {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				changed[dir] = st.Mtim
			}
		}
		if !s.stays {
			removeEmpty(fd, path.Base(s.name), s.dir)
		}
		unix.Close(fd)
	}
	// Deepest first, so that a directory whose only child left the layer can follow it.
	names := slices.SortedFunc(maps.Keys(t.pre), func(a, b string) int {
		return strings.Count(b, "/") - strings.Count(a, "/")
	})
	for _, name := range names {
		if err := t.restore(up, name, changed); err != nil {
			return fmt.Errorf("restoring /%s: %w", name, err)
		}
	}
	return nil
}

// restore gives the directory name its time back and removes it from the upper when it is there only because of stubs.
func (t *tree) restore(up int, name string, changed map[string]unix.Timespec) error {
	fd, err := openBeneath(up, name)
	if err != nil {
		return nil // gone or replaced: the step's own doing
	}
	defer unix.Close(fd)
	m := t.pre[name]
	stubsOnly := false // nothing but making stubs changed what is in it
	if was, ok := changed[name]; ok {
		stubsOnly = was == m.after
		// Not the time before the stubs: BuildKit leaves this one, and a layer holds it when something else in the
		// directory changed. The root is in no layer.
		if stubsOnly && name == "." {
			was = m.mtime
		}
		if err := setMtime(fd, was); err != nil {
			return err
		}
	}
	if name == "." {
		return nil
	}
	now, err := readMeta(fd)
	if err != nil {
		return err
	}
	if now.mode != m.mode || now.uid != m.uid || now.gid != m.gid || now.mtime != m.mtime && !stubsOnly || !maps.Equal(now.xattrs, m.xattrs) {
		return nil
	}
	if n, err := unix.Fgetxattr(fd, "user.overlay.opaque", nil); err == nil && n > 0 {
		return nil
	}
	parent, err := openBeneath(up, path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstat(parent, &st); err != nil {
		return err
	}
	removeEmpty(parent, path.Base(name), true)
	return setMtime(parent, st.Mtim)
}

// openBeneath opens a directory of the upper for reading; no link is followed.
func openBeneath(dir int, name string) (int, error) {
	return openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// removeEmpty removes a directory without entries or a file without bytes; anything else stays.
func removeEmpty(dir int, name string, isDir bool) {
	if isDir {
		_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) // ENOTEMPTY, ENOTDIR: not a stub any more
		return
	}
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 {
		_ = unix.Unlinkat(dir, name, 0)
	}
}

func setMtime(fd int, t unix.Timespec) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
}

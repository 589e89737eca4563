package sandbox

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// owners is where a single uid keeps who files belong to and which devices they are: in an xattr of files and
// directories, which goes where they go (copying up, renames, hard links, the next step); in a table by name for what
// cannot have one of these (symlinks, fifos, sockets), which is the layer's sidecar file in the end; in memory for what
// is in no layer and has no xattrs (secrets, terminals).
type owners struct {
	mu     sync.Mutex // guards what follows
	byName map[string]named
	byNode map[node]layer.Owner
}

// named is an entry of the table. It holds for a file of that birth only, so that one which took its name later has no
// part in it.
type named struct {
	layer.Owner
	born unix.StatxTimestamp
	ino  uint64              // as the overlay shows it; 0: not known, it is in a lower layer
	time unix.StatxTimestamp // of a lower layer: its mtime, which it keeps when it is copied up and born again
}

type node struct{ dev, ino uint64 }

// load reads the sidecars of a step's lower directories, top first.
func (o *owners) load(lowers []string) error {
	o.byName, o.byNode = map[string]named{}, map[node]layer.Owner{}
	for i, dir := range lowers {
		list, err := layer.ReadOwners(dir)
		if err != nil {
			return err
		}
		for name, owner := range list {
			full := "/" + name
			if _, ok := o.byName[full]; ok || shadowed(lowers[:i], name) {
				continue
			}
			var st unix.Statx_t
			if unix.Statx(unix.AT_FDCWD, filepath.Join(dir, name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_MTIME, &st) != nil {
				continue
			}
			o.byName[full] = named{Owner: owner, born: st.Btime, time: st.Mtime}
		}
	}
	return nil
}

// shadowed says whether a name of a lower directory is covered by one of those above it.
func shadowed(above []string, name string) bool {
	for _, dir := range above {
		for sub := name; sub != "."; sub = path.Dir(sub) {
			var st unix.Stat_t
			p := filepath.Join(dir, sub)
			if unix.Lstat(p, &st) != nil {
				continue
			}
			if sub == name || st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return true
			}
			if n, err := unix.Lgetxattr(p, "user.overlay.opaque", make([]byte, 1)); err == nil && n == 1 {
				return true
			}
		}
	}
	return false
}

// hasXattrs says whether a file can carry a record.
func hasXattrs(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFREG || mode&unix.S_IFMT == unix.S_IFDIR
}

func nodeOf(st *unix.Stat_t) node { return node{st.Dev, st.Ino} }

// of returns what is recorded of a file; ok says that something is.
func (o *owners) of(s *supervisor, f *file) (rec layer.Owner, ok bool) {
	if hasXattrs(f.st.Mode) {
		var buf [64]byte
		n := 0
		err := f.with(unix.S_IRUSR, func() (err error) {
			n, err = unix.Getxattr(f.path(), layer.OwnerXattr, buf[:])
			return err
		})
		if err == nil {
			if rec.UnmarshalBinary(buf[:n]) == nil {
				return rec, true
			}
			return layer.Owner{}, false
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.byNode) > 0 {
		if rec, ok := o.byNode[nodeOf(&f.st)]; ok {
			return rec, true
		}
	}
	if len(o.byName) == 0 || hasXattrs(f.st.Mode) || !s.inRootfs(f.fd) {
		return layer.Owner{}, false
	}
	n, ok := o.byName[f.name()]
	if !ok || !n.is(f) {
		return layer.Owner{}, false
	}
	return n.Owner, true
}

// is says whether the entry is about this file rather than one that had the name before.
func (n named) is(f *file) bool {
	var st unix.Statx_t
	if unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME|unix.STATX_MTIME, &st) != nil {
		return false
	}
	if n.ino == 0 {
		return st.Btime == n.born || st.Mtime == n.time
	}
	return st.Btime == n.born && n.ino == f.st.Ino
}

// birth is when a file was made; file systems that do not know say zero.
func birth(f *file) (unix.StatxTimestamp, bool) {
	var st unix.Statx_t
	if unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) != nil {
		return unix.StatxTimestamp{}, false
	}
	return st.Btime, true
}

// set records what a file is; an owner of root, and a file as it is on disk, need no record.
func (o *owners) set(s *supervisor, f *file, rec layer.Owner) error {
	if hasXattrs(f.st.Mode) {
		err := setRecord(f, rec)
		if err == nil || s.inRootfs(f.fd) {
			return err
		}
	} else if s.inRootfs(f.fd) {
		return o.setNamed(f, f.name(), rec)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if rec == (layer.Owner{}) {
		delete(o.byNode, nodeOf(&f.st))
	} else {
		o.byNode[nodeOf(&f.st)] = rec
	}
	return nil
}

func setRecord(f *file, rec layer.Owner) error {
	if rec == (layer.Owner{}) {
		err := f.with(unix.S_IWUSR, func() error { return unix.Removexattr(f.path(), layer.OwnerXattr) })
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
		return nil
	}
	b, err := rec.MarshalBinary()
	if err != nil {
		return err
	}
	return f.with(unix.S_IWUSR, func() error { return unix.Setxattr(f.path(), layer.OwnerXattr, b, 0) })
}

// with does something with an attribute of a file of ours. Without CAP_DAC_OVERRIDE (a container's root) the file's own mode can forbid that, as
// that of a file which dpkg is unpacking does (0): it has the bit for the moment.
func (f *file) with(bit uint32, do func() error) error {
	err := do()
	if err == nil || !errors.Is(err, unix.EACCES) || f.st.Mode&bit != 0 || int(f.st.Uid) != unix.Geteuid() {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(f.fd, &now); err != nil {
		return err
	}
	if err := unix.Chmod(f.path(), now.Mode&0o7777|bit); err != nil {
		return err
	}
	return errors.Join(do(), unix.Chmod(f.path(), now.Mode&0o7777))
}

// setNamed records what the file of a name is, and those that are links to it.
func (o *owners) setNamed(f *file, name string, rec layer.Owner) error {
	born, ok := birth(f) // after the copying up
	if !ok {
		return fmt.Errorf("%w: no birth time", unix.ENOTSUP)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	now := named{Owner: rec, born: born, ino: st.Ino}
	o.mu.Lock()
	defer o.mu.Unlock()
	if st.Nlink > 1 {
		for other, n := range o.byName {
			if n.born == born && n.ino == st.Ino {
				o.byName[other] = now
			}
		}
	}
	if rec == (layer.Owner{}) && st.Nlink == 1 {
		delete(o.byName, name)
		return nil
	}
	o.byName[name] = now
	return nil
}

// moved changes names after a rename; both says that the two were exchanged.
func (o *owners) moved(from, to string, both bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[string]named, len(o.byName))
	for name, n := range o.byName {
		switch {
		case within(name, from):
			name = to + name[len(from):]
		case within(name, to):
			if !both {
				continue
			}
			name = from + name[len(to):]
		}
		out[name] = n
	}
	o.byName = out
}

func within(name, dir string) bool {
	return strings.HasPrefix(name, dir) && (len(name) == len(dir) || name[len(dir)] == '/')
}

func (o *owners) anyNamed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.byName) > 0
}

// save writes the sidecar of an upper directory: the table's entries that are in it, as they are now.
func (o *owners) save(upper string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	dir, err := openDir(upper)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	out := map[string]layer.Owner{}
	for name, n := range o.byName {
		rel := strings.TrimPrefix(name, "/")
		fd, err := openat2(dir, rel, &unix.OpenHow{Flags: pathOnly | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // it is not there any more, or is another layer's
		}
		f, err := opened(fd, err)
		if err != nil {
			return fmt.Errorf("keeping the owner of %s: %w", name, err)
		}
		n.ino = min(n.ino, 1) * f.st.Ino // the upper directory's own numbers are others
		if n.is(f) && !hasXattrs(f.st.Mode) && n.Owner != (layer.Owner{}) {
			out[rel] = n.Owner
		}
		f.close()
	}
	return layer.WriteOwners(upper, out)
}

// chown gives a directory that is made for a step to its user.
func (t *tree) chown(dir int, name string, uid, gid int) error {
	if !t.records {
		return unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, err := layer.Owner{UID: uint32(uid), GID: uint32(gid)}.MarshalBinary()
	if err != nil {
		return err
	}
	return unix.Fsetxattr(fd, layer.OwnerXattr, b, 0)
}

package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// fileDir opens files of a tree for reading, by few system calls each: a tree may have very many small ones. It keeps the
// directory open that it opened a file of last. Names are opened in their directory, which was opened below the root, and
// never followed.
type fileDir struct {
	mu   sync.RWMutex // guards what follows
	name string
	dir  *os.File
}

const openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOFOLLOW

func (d *fileDir) open(root *os.Root, name string) (opened, error) {
	dir, base := path.Split(name)
	f, err := d.openat(dir, base)
	if errors.Is(err, errOtherDir) {
		if err := d.enter(root, dir); err == nil {
			f, err = d.openat(dir, base)
			if err == nil {
				return f, nil
			}
		}
	}
	if err == nil {
		return f, nil
	}
	of, err := openIn(root, name) // it says what is wrong, or somebody else went on to another directory
	if err != nil {
		return nil, err
	}
	return osFile{of}, nil
}

var errOtherDir = errors.New("another directory is open")

func (d *fileDir) openat(dir, base string) (*handFile, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.dir == nil || d.name != dir {
		return nil, errOtherDir
	}
	fd, err := retry(func() (int, error) { return unix.Openat(int(d.dir.Fd()), base, openFlags, 0) })
	if err != nil {
		return nil, err
	}
	return &handFile{fd: fd, name: base}, nil
}

func (d *fileDir) enter(root *os.Root, dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir != nil {
		_ = d.dir.Close()
		d.dir = nil
	}
	at := dir
	if at == "" {
		at = "."
	}
	f, err := root.Open(at)
	if err == nil {
		d.name, d.dir = dir, f
	}
	return err
}

func (d *fileDir) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir == nil {
		return nil
	}
	err := d.dir.Close()
	d.dir = nil
	return err
}

// handFile is a file without what os.File has for pipes and forgotten ones. It is used by one goroutine.
type handFile struct {
	fd   int // -1: closed
	name string
	size int64 // as stat said last
	read int64
	end  bool
}

// Read implements io.Reader. The end comes with the last bytes: less than was asked for, and as many as the file has.
func (f *handFile) Read(p []byte) (int, error) {
	if f.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := retry(func() (int, error) { return unix.Read(f.fd, p) })
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: err}
	}
	f.read += int64(n)
	if n == 0 || n < len(p) && f.read >= f.size && f.size > 0 {
		f.end = true
		return n, io.EOF
	}
	return n, nil
}

func (f *handFile) Close() error {
	if f.fd < 0 {
		return fs.ErrClosed
	}
	err := unix.Close(f.fd)
	f.fd = -1
	if err != nil {
		return &fs.PathError{Op: "close", Path: f.name, Err: err}
	}
	return nil
}

func (f *handFile) stat() (fileStat, bool, error) {
	var s unix.Stat_t
	if err := unix.Fstat(f.fd, &s); err != nil {
		return fileStat{}, false, &fs.PathError{Op: "stat", Path: f.name, Err: err}
	}
	f.size = s.Size
	return statBy(&s), s.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

func statBy(s *unix.Stat_t) fileStat {
	return fileStat{Size: s.Size, Mtime: s.Mtim.Nano(), Ctime: s.Ctim.Nano(), Inode: s.Ino, Dev: uint64(s.Dev)} //nolint:unconvert // 32 bits elsewhere
}

// retry calls fn again when a signal interrupted it.
func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != unix.EINTR { //nolint:errorlint // as the system call gave it
			return n, err
		}
	}
}

// listDir reads a directory, unsorted: what each name is, and where symlinks lead.
func listDir(root *os.Root, name string) (out []dirName, err error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	fd := int(d.Fd())
	buf := dirBuffers.Get().(*[dirBuffer]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer dirBuffers.Put(buf)
	var names []string
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf[:]) })
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", name, err)
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	out = make([]dirName, 0, len(names))
	var s unix.Stat_t
	for _, n := range names {
		_, err := retry(func() (int, error) { return 0, unix.Fstatat(fd, n, &s, unix.AT_SYMLINK_NOFOLLOW) })
		if err == unix.ENOENT { //nolint:errorlint // as the system call gave it
			continue // removed meanwhile
		}
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: path.Join(name, n), Err: err}
		}
		l := dirName{
			name: n, mode: goMode(s.Mode), stat: statBy(&s), id: fileID{uint64(s.Dev), s.Ino}, links: uint64(s.Nlink), //nolint:unconvert // 32 bits elsewhere
			major: int64(unix.Major(uint64(s.Rdev))), minor: int64(unix.Minor(uint64(s.Rdev))), //nolint:unconvert // 32 bits elsewhere
		}
		if l.mode&fs.ModeSymlink != 0 {
			if n, err := retry(func() (int, error) { return unix.Readlinkat(fd, n, buf[:]) }); err == nil {
				l.target = string(buf[:n])
			}
		}
		out = append(out, l)
	}
	return out, nil
}

const dirBuffer = 32 << 10

var dirBuffers = sync.Pool{New: func() any { return new([dirBuffer]byte) }}

// goMode is a mode of stat as Go has it.
func goMode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= fs.ModeDir
	case unix.S_IFLNK:
		out |= fs.ModeSymlink
	case unix.S_IFIFO:
		out |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= fs.ModeSocket
	case unix.S_IFBLK:
		out |= fs.ModeDevice
	case unix.S_IFCHR:
		out |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		out |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		out |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		out |= fs.ModeSticky
	}
	return out
}

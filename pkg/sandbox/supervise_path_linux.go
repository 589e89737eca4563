package sandbox

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// file is what a call is about: a descriptor (O_PATH) and how it was.
type file struct {
	fd int
	st unix.Stat_t
	at string // name of the descriptor in our /proc
}

func (f *file) close() { unix.Close(f.fd) }

// path is a name of the file for calls that take no descriptor of this kind.
func (f *file) path() string {
	if f.at == "" {
		f.at = "/proc/self/fd/" + strconv.Itoa(f.fd)
	}
	return f.at
}

// name is the file's name in the rootfs; " (deleted)" may follow.
func (f *file) name() string {
	s, err := readlinkAt(unix.AT_FDCWD, f.path())
	if err != nil {
		return ""
	}
	return s
}

func opened(fd int, err error) (*file, error) {
	if err != nil {
		return nil, err
	}
	f := &file{fd: fd}
	if err := unix.Fstat(fd, &f.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// errNotOurs is about calls that the kernel answers best.
var errNotOurs = errors.New("left to the kernel")

const pathOnly = unix.O_PATH | unix.O_CLOEXEC

// file opens what a call is about.
func (s *supervisor) file(c *call) (*file, error) {
	if c.fd >= 0 {
		return opened(s.openOf(c, c.fdPath(c.fd)))
	}
	nofollow, empty := c.nofollow, false
	if c.flags >= 0 {
		nofollow = nofollow || c.args[c.flags]&unix.AT_SYMLINK_NOFOLLOW != 0
		empty = c.args[c.flags]&unix.AT_EMPTY_PATH != 0
	}
	return s.named(c, c.dir, c.path, nofollow, empty)
}

// fdPath is the name of a descriptor of the task below proc.
func (c *call) fdPath(i int) string {
	return c.tid + "/fd/" + strconv.Itoa(int(int32(c.args[i])))
}

// base is the name of the directory that relative names start from below proc.
func (c *call) base(dir int) string {
	if dir < 0 || int32(c.args[dir]) == unix.AT_FDCWD {
		return c.tid + "/cwd"
	}
	return c.fdPath(dir)
}

// named opens the name in an argument.
func (s *supervisor) named(c *call, dir, path int, nofollow, empty bool) (*file, error) {
	if c.args[path] == 0 {
		if !empty {
			return nil, errNotOurs
		}
		return opened(s.openOf(c, c.base(dir)))
	}
	name, err := s.readString(c, c.args[path], unix.PathMax)
	if err != nil {
		return nil, err
	}
	if name == "" {
		if !empty {
			return nil, errNotOurs
		}
		return opened(s.openOf(c, c.base(dir)))
	}
	flags := uint64(pathOnly)
	if nofollow {
		flags |= unix.O_NOFOLLOW
	}
	return opened(s.resolve(c, dir, name, flags))
}

// resolve opens a name as the task would: from its directory, below its root, with its mounts. Magic links are left to
// the kernel.
func (s *supervisor) resolve(c *call, dir int, name string, flags uint64) (int, error) {
	if s.jail != nil {
		return s.jail.resolve(s, c, dir, name, flags)
	}
	start, how := c.tid+"/root", unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !strings.HasPrefix(name, "/") {
		start, how.Resolve = c.base(dir), unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS
	}
	at, err := unix.Openat(s.proc, start, pathOnly|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd, err := openat2(at, name, &how)
	if !errors.Is(err, unix.EXDEV) {
		return fd, err
	}
	return s.resolveExact(c, at, name, flags)
}

// resolveExact resolves a relative name that leaves the directory at on its way.
func (s *supervisor) resolveExact(c *call, at int, name string, flags uint64) (fd int, err error) {
	root, err := unix.Openat(s.proc, c.tid+"/root", pathOnly|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	// With the task's root and directory as our own. This is the supervisor's own thread (serve).
	defer func() {
		err = errors.Join(err, unix.Fchdir(s.home), unix.Chroot("."))
		if err != nil && fd >= 0 {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err := unix.Fchdir(root); err != nil {
		return -1, err
	}
	if err := unix.Chroot("."); err != nil {
		return -1, err
	}
	if err := unix.Fchdir(at); err != nil {
		return -1, err
	}
	return openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_MAGICLINKS})
}

// openat2 tries again when a rename somewhere disturbed the walk.
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, name, how)
		if try < 64 && (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) {
			continue
		}
		return fd, err
	}
}

// place is where a call makes a name.
type place struct {
	parent *file
	base   string
	slash  bool // the name ends with one, so it must be a directory
}

func (p *place) close() { p.parent.close() }

// place opens the directory that the name in an argument is in.
func (s *supervisor) place(c *call, dir, arg int) (*place, error) {
	name, err := s.readString(c, c.args[arg], unix.PathMax)
	if err != nil {
		return nil, err
	}
	return s.placeOf(c, dir, name)
}

func (s *supervisor) placeOf(c *call, dir int, name string) (*place, error) {
	parent, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == "." || base == ".." {
		return nil, errNotOurs
	}
	if parent == "" {
		parent = "."
	}
	f, err := opened(s.resolve(c, dir, parent, pathOnly|unix.O_DIRECTORY))
	if err != nil {
		return nil, err
	}
	return &place{f, base, strings.HasSuffix(name, "/")}, nil
}

// name is the place's name in the rootfs.
func (p *place) name() string { return path.Join(p.parent.name(), p.base) }

func readlinkAt(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// readString reads a string of at most limit bytes with its end out of the task's memory.
func (s *supervisor) readString(c *call, addr uint64, limit int) (string, error) {
	buf := make([]byte, 0, 256)
	piece := s.memory().piece()
	for len(buf) < limit {
		// Up to the end of the page: the next one may not be there.
		part := make([]byte, min(piece-int(addr%uint64(piece)), limit-len(buf)))
		if err := s.readMemory(c, addr, part); err != nil {
			return "", err
		}
		if i := strings.IndexByte(string(part), 0); i >= 0 {
			return string(append(buf, part[:i]...)), nil
		}
		buf = append(buf, part...)
		addr += uint64(len(part))
	}
	return "", unix.ENAMETOOLONG
}

func (s *supervisor) readMemory(c *call, addr uint64, b []byte) error {
	return s.memory().read(int(c.n.pid), addr, b)
}

// writeMemory writes into the task's memory, as long as it is the task that asked.
func (s *supervisor) writeMemory(c *call, addr uint64, b []byte) error {
	if !s.alive(c) {
		return unix.ESRCH
	}
	return s.memory().write(int(c.n.pid), addr, b)
}

func (s *supervisor) memory() memory {
	if s.mem != nil {
		return s.mem
	}
	return vmMemory{}
}

package sandbox

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// stat shows what is recorded of a file.
func (s *supervisor) stat(c *call) answer {
	f, err := s.file(c)
	if err != nil {
		return proceed
	}
	defer f.close()
	rec, ok := s.recordOf(f)
	if !ok {
		return proceed
	}
	if c.op == opStatx {
		return s.statx(c, f, rec)
	}
	st := f.st
	st.Uid, st.Gid = rec.UID, rec.GID
	if rec.Type != 0 {
		st.Mode = st.Mode&^unix.S_IFMT | rec.Type
		st.Rdev = rec.Rdev
	}
	if err := s.writeMemory(c, c.args[c.arg], statBytes(&st, c.layout)); err != nil {
		return failed(err)
	}
	return answer{}
}

// recordOf is what programs are told a file is; ok says that it is not what it is on disk.
func (s *supervisor) recordOf(f *file) (rec layer.Owner, ok bool) {
	if s.real {
		return s.deviceOf(f)
	}
	return s.owners.of(s, f)
}

func (s *supervisor) statx(c *call, f *file, rec layer.Owner) answer {
	const sync = unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC
	flags, mask, buf := c.args[c.flags], c.args[c.arg+1], c.args[c.arg+2]
	var st unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH|int(flags&sync), int(uint32(mask)), &st); err != nil {
		return failed(err)
	}
	st.Uid, st.Gid = rec.UID, rec.GID
	if rec.Type != 0 {
		st.Mode = st.Mode&^unix.S_IFMT | uint16(rec.Type)
		st.Rdev_major, st.Rdev_minor = unix.Major(rec.Rdev), unix.Minor(rec.Rdev)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)) //nolint:gosec // as the kernel lays it out
	if err := s.writeMemory(c, buf, b); err != nil {
		return failed(err)
	}
	return answer{}
}

// statBytes is struct stat as a table's callers know it.
func statBytes(st *unix.Stat_t, l statLayout) []byte {
	if l == statNative {
		return unsafe.Slice((*byte)(unsafe.Pointer(st)), unsafe.Sizeof(*st)) //nolint:gosec // as the kernel lays it out
	}
	// struct stat64 (arch/x86/include/uapi/asm/stat.h, arch/arm/include/uapi/asm/stat.h); arm aligns 8-byte fields.
	le := binary.LittleEndian
	b := make([]byte, 0, 104)
	pad := func() {
		if l == stat64arm && len(b)%8 != 0 {
			b = append(b, 0, 0, 0, 0)
		}
	}
	b = le.AppendUint64(b, uint64(st.Dev))
	b = append(b, 0, 0, 0, 0)
	for _, v := range []uint32{uint32(st.Ino), st.Mode, uint32(st.Nlink), st.Uid, st.Gid} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(b, uint64(st.Rdev))
	b = append(b, 0, 0, 0, 0)
	pad()
	b = le.AppendUint64(b, uint64(st.Size))
	b = le.AppendUint32(b, uint32(st.Blksize))
	pad()
	b = le.AppendUint64(b, uint64(st.Blocks))
	for _, t := range []unix.Timespec{st.Atim, st.Mtim, st.Ctim} {
		b = le.AppendUint32(b, uint32(t.Sec))
		b = le.AppendUint32(b, uint32(t.Nsec))
	}
	return le.AppendUint64(b, st.Ino)
}

// listxattr hides our records.
func (s *supervisor) listxattr(c *call) answer {
	f, err := s.file(c)
	if err != nil || !hasXattrs(f.st.Mode) {
		if err == nil {
			f.close()
		}
		return proceed
	}
	defer f.close()
	if _, ok := s.recordOf(f); !ok {
		return proceed
	}
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(f.path(), buf)
	if err != nil {
		return failed(err)
	}
	var b strings.Builder
	for name := range strings.SplitAfterSeq(string(buf[:n]), "\x00") {
		if name != layer.OwnerXattr+"\x00" {
			b.WriteString(name)
		}
	}
	list, size := c.args[c.arg], c.args[c.arg+1]
	switch {
	case size == 0:
	case uint64(b.Len()) > size:
		return answer{errno: unix.ERANGE}
	default:
		if err := s.writeMemory(c, list, []byte(b.String())); err != nil {
			return failed(err)
		}
	}
	return answer{val: int64(b.Len())}
}

package sandbox

import "golang.org/x/sys/unix"

// sysop is what a system call does, whatever its number and arguments are called.
type sysop uint8

// The operations that depend on owners or ids.
const (
	opChown sysop = iota
	opMknod
	opStat
	opStatx
	opOpen
	opOpenat2
	opMkdir
	opSymlink
	opLink
	opRename
	opExec
	opListxattr
	opNamedXattr // setxattr, removexattr
	opPrctl      // with PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET_KEEPCAPS or PR_SET_SECUREBITS
	opCapset
	opGetUID
	opGetEUID
	opGetGID
	opGetEGID
	opGetresUID
	opGetresGID
	opGetgroups
	opSetUID
	opSetGID
	opSetreUID
	opSetreGID
	opSetresUID
	opSetresGID
	opSetfsUID
	opSetfsGID
	opSetgroups
)

// statLayout is which struct stat a call fills.
type statLayout uint8

const (
	statNative statLayout = iota
	stat64i386
	stat64arm
)

// sysCall is one system call: where in its arguments the things are that an operation needs. -1: it has none.
type sysCall struct {
	nr    uint32
	op    sysop
	dir   int // descriptor of a directory; -1: the working directory
	path  int
	fd    int // descriptor of the file itself
	flags int // AT_*
	arg   int // the first of the operation's own
	// Of calls with two names (link, rename, symlink) dir and path are the new one's.
	oldDir, old int
	nofollow    bool // a symlink at the end is meant itself
	short       bool // 16-bit ids
	layout      statLayout
	when        *argTest // nil: always
}

// argTest is a test of a 32-bit argument that the filter makes itself: any of mask's bits, or equal to one of values.
type argTest struct {
	arg    int
	mask   uint32
	values []uint32
}

// abi is the system calls of one table.
type abi struct {
	arch  uint32 // AUDIT_ARCH_*
	calls []sysCall
	deny  []uint32 // calls that do not exist: they would go around the filter
}

const (
	createFlags   = unix.O_CREAT | 0o20000000 // __O_TMPFILE
	setTimerslack = unix.PR_SET_TIMERSLACK
	getTimerslack = unix.PR_GET_TIMERSLACK
)

func none(nr uint32, op sysop) sysCall {
	return sysCall{nr: nr, op: op, dir: -1, path: -1, fd: -1, flags: -1, arg: 0, oldDir: -1, old: -1}
}

func (c sysCall) ids16() sysCall { c.short = true; return c }

func (c sysCall) itself() sysCall { c.nofollow = true; return c }

func (c sysCall) as(l statLayout) sysCall { c.layout = l; return c }

// byPath has its name first, byFD a descriptor, at a directory and a name.
func byPath(nr uint32, op sysop) sysCall {
	c := none(nr, op)
	c.path, c.arg = 0, 1
	return c
}

func byFD(nr uint32, op sysop) sysCall {
	c := none(nr, op)
	c.fd, c.arg = 0, 1
	return c
}

func at(nr uint32, op sysop, flags int) sysCall {
	c := none(nr, op)
	c.dir, c.path, c.arg, c.flags = 0, 1, 2, flags
	return c
}

// two has an old name (or a link's text) and a new one.
func two(nr uint32, op sysop, oldDir, old, dir, path, flags int) sysCall {
	c := none(nr, op)
	c.oldDir, c.old, c.dir, c.path, c.flags = oldDir, old, dir, path, flags
	return c
}

// creating is an open that is only asked about when it may make a file.
func creating(c sysCall) sysCall {
	c.when = &argTest{arg: c.arg, mask: createFlags}
	return c
}

func prctl(nr uint32) sysCall {
	c := none(nr, opPrctl)
	c.when = &argTest{arg: 0, values: []uint32{setTimerslack, getTimerslack, unix.PR_SET_KEEPCAPS, unix.PR_SET_SECUREBITS}}
	return c
}

// creat is open(path, O_CREAT|O_WRONLY|O_TRUNC, mode): its mode is where open's would be when flags are argument 0,
// which they are not; arg -1 says so.
func creat(nr uint32) sysCall {
	c := byPath(nr, opOpen)
	c.arg = -1
	return c
}

// atCalls are those that every architecture has, by the numbers of one.
type atNumbers struct {
	fchownat, mknodat, newfstatat, statx, openat, openat2, mkdirat, symlinkat, linkat, renameat, renameat2 uint32
	execve, execveat, prctl, capset                                                                        uint32
	setxattr, lsetxattr, fsetxattr, listxattr, llistxattr, flistxattr, removexattr, lremovexattr           uint32
	fremovexattr, setxattrat, listxattrat, removexattrat                                                   uint32
}

func (n atNumbers) calls(stat statLayout) []sysCall {
	return []sysCall{
		at(n.newfstatat, opStat, 3).as(stat), at(n.statx, opStatx, 2), creating(at(n.openat, opOpen, -1)),
		at(n.execveat, opExec, 4), byPath(n.execve, opExec),
		at(n.fchownat, opChown, 4), at(n.mknodat, opMknod, -1), at(n.openat2, opOpenat2, -1), at(n.mkdirat, opMkdir, -1),
		two(n.symlinkat, opSymlink, -1, 0, 1, 2, -1), two(n.linkat, opLink, 0, 1, 2, 3, 4),
		two(n.renameat, opRename, 0, 1, 2, 3, -1), two(n.renameat2, opRename, 0, 1, 2, 3, 4),
		byPath(n.listxattr, opListxattr), byPath(n.llistxattr, opListxattr).itself(), byFD(n.flistxattr, opListxattr),
		byPath(n.setxattr, opNamedXattr), byPath(n.lsetxattr, opNamedXattr).itself(), byFD(n.fsetxattr, opNamedXattr),
		byPath(n.removexattr, opNamedXattr), byPath(n.lremovexattr, opNamedXattr).itself(), byFD(n.fremovexattr, opNamedXattr),
		listxattrAt(n.listxattrat), namedxattrAt(n.setxattrat), namedxattrAt(n.removexattrat),
		prctl(n.prctl), none(n.capset, opCapset),
	}
}

// listxattrat(dfd, path, flags, list, size), setxattrat(dfd, path, flags, name, ...), removexattrat(dfd, path, flags, name).
func listxattrAt(nr uint32) sysCall {
	c := at(nr, opListxattr, 2)
	c.arg = 3
	return c
}

func namedxattrAt(nr uint32) sysCall {
	c := at(nr, opNamedXattr, 2)
	c.arg = 3
	return c
}

// idNumbers are the calls about a task's ids: those of the uid, then its twin for the gid.
type idNumbers struct {
	get, gete, set, setre, setres, getres, setfs [2]uint32
	getgroups, setgroups                         uint32
}

func (n idNumbers) calls() []sysCall {
	return []sysCall{
		none(n.get[0], opGetUID), none(n.get[1], opGetGID), none(n.gete[0], opGetEUID), none(n.gete[1], opGetEGID),
		none(n.set[0], opSetUID), none(n.set[1], opSetGID), none(n.setre[0], opSetreUID), none(n.setre[1], opSetreGID),
		none(n.setres[0], opSetresUID), none(n.setres[1], opSetresGID), none(n.getres[0], opGetresUID), none(n.getres[1], opGetresGID),
		none(n.setfs[0], opSetfsUID), none(n.setfs[1], opSetfsGID), none(n.getgroups, opGetgroups), none(n.setgroups, opSetgroups),
	}
}

// abi32 is what i386 and 32-bit arm have in common (arch/x86/entry/syscalls/syscall_32.tbl, arch/arm/tools/syscall.tbl).
func abi32(arch uint32, n atNumbers, stat statLayout) abi {
	n.openat2, n.execve, n.prctl, n.capset = 437, 11, 172, 185
	n.setxattr, n.lsetxattr, n.fsetxattr = 226, 227, 228
	n.listxattr, n.llistxattr, n.flistxattr = 232, 233, 234
	n.removexattr, n.lremovexattr, n.fremovexattr = 235, 236, 237
	n.setxattrat, n.listxattrat, n.removexattrat = 463, 465, 466
	calls := n.calls(stat)
	calls = append(
		calls, byPath(195, opStat).as(stat), byPath(196, opStat).as(stat).itself(), byFD(197, opStat).as(stat),
		byPath(182, opChown).ids16(), byFD(95, opChown).ids16(), byPath(16, opChown).ids16().itself(),
		byPath(212, opChown), byFD(207, opChown), byPath(198, opChown).itself(),
		creating(byPath(5, opOpen)), creat(8), byPath(14, opMknod), byPath(39, opMkdir), two(83, opSymlink, -1, 0, -1, 1, -1),
		two(9, opLink, -1, 0, -1, 1, -1), two(38, opRename, -1, 0, -1, 1, -1),
	)
	calls = append(calls, idNumbers{
		get: [2]uint32{199, 200}, gete: [2]uint32{201, 202}, set: [2]uint32{213, 214}, setre: [2]uint32{203, 204},
		setres: [2]uint32{208, 210}, getres: [2]uint32{209, 211}, setfs: [2]uint32{215, 216}, getgroups: 205, setgroups: 206,
	}.calls()...)
	for _, c := range (idNumbers{
		get: [2]uint32{24, 47}, gete: [2]uint32{49, 50}, set: [2]uint32{23, 46}, setre: [2]uint32{70, 71},
		setres: [2]uint32{164, 170}, getres: [2]uint32{165, 171}, setfs: [2]uint32{138, 139}, getgroups: 80, setgroups: 81,
	}).calls() {
		calls = append(calls, c.ids16())
	}
	return abi{arch: arch, calls: calls, deny: []uint32{425}}
}

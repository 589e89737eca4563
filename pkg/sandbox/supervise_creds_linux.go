package sandbox

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// baseSlack is what every task has as its timer slack unless it asks for another (prctl(2)), in nanoseconds.
const baseSlack = 50_000

// taskCreds knows the ids of every task. They are kept in the kernel: a task's timer slack is baseSlack plus the index of
// its ids in a table. The kernel hands it to threads and children at the very moment they are made and keeps it over
// execve, so nothing can be missed, whoever dies or changes first; a few nanoseconds more are noticed by nobody.
type taskCreds struct {
	changed atomic.Bool // some task had other ids than the first one
	root    bool        // the first one was root

	mu    sync.Mutex // guards what follows
	table []creds
	index map[creds]int
}

func (t *taskCreds) init(first creds) {
	t.table, t.index = []creds{first}, map[creds]int{first: 0}
	t.root = first.ruid == 0 && first.rgid == 0
}

// firstSlack is what the first task must start with.
const firstSlack = baseSlack

func (t *taskCreds) of(s *supervisor, c *call) creds {
	i := 0
	if t.changed.Load() {
		i = s.slackOf(c)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < 0 || i >= len(t.table) { // a real-time task, or one that came around the filter
		i = 0
	}
	return t.table[i]
}

// slackOf is the index in a task's timer slack.
func (s *supervisor) slackOf(c *call) int {
	if s.jail != nil {
		return s.limitOf(c)
	}
	fd, err := unix.Openat(s.proc, c.tid+"/timerslack_ns", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var b [24]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return 0
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return v - baseSlack
}

// become gives a task ids.
func (s *supervisor) become(c *call, n creds) error {
	t := &s.tasks
	t.mu.Lock()
	i, ok := t.index[n]
	if !ok {
		i = len(t.table)
		t.table = append(t.table, n)
		t.index[n] = i
	}
	t.mu.Unlock()
	if !s.alive(c) {
		return unix.ESRCH
	}
	if i != 0 {
		t.changed.Store(true)
	}
	if s.jail != nil {
		return setLimitOf(int(c.n.pid), i)
	}
	fd, err := unix.Openat(s.proc, c.tid+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return unix.EPERM
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, strconv.AppendInt(nil, int64(baseSlack+i), 10)); err != nil {
		return unix.EPERM
	}
	return nil
}

// prctl answers what the filter reports of prctl(2).
func (s *supervisor) prctl(c *call) answer {
	have := s.tasks.of(s, c)
	switch uint32(c.args[0]) {
	case unix.PR_SET_KEEPCAPS:
		have.keep = c.args[1] != 0
	case unix.PR_SET_SECUREBITS:
		have.keep = c.args[1]&(secureKeepCaps|secureNoFixup) != 0
	default:
		return timerslackAnswer(c)
	}
	if have != s.tasks.of(s, c) {
		if err := s.become(c, have); err != nil {
			return failed(err)
		}
	}
	return proceed
}

// SECBIT_KEEP_CAPS and SECBIT_NO_SETUID_FIXUP (linux/securebits.h).
const (
	secureKeepCaps = 1 << 4
	secureNoFixup  = 1 << 2
)

// capset notes what a task that kept capabilities makes effective. The kernel, where it has all that a step may have, sees
// to the rest.
func (s *supervisor) capset(c *call) answer {
	have := s.tasks.of(s, c)
	if have.privileged() || !have.kept {
		return proceed
	}
	var b [8]byte // struct __user_cap_data_struct: effective, permitted
	if err := s.readMemory(c, c.args[1], b[:]); err != nil {
		return failed(err)
	}
	const mask = capChown | capSetGID | capSetUID
	n := have
	n.caps = uint8(binary.NativeEndian.Uint32(b[:])) & mask
	n.kept = binary.NativeEndian.Uint32(b[4:])&mask != 0
	if n != have {
		if err := s.become(c, n); err != nil {
			return failed(err)
		}
	}
	return proceed
}

// timerslackAnswer shows the value that everybody has; one that a task asks for would only be about power.
func timerslackAnswer(c *call) answer {
	if uint32(c.args[0]) == getTimerslack {
		return answer{val: baseSlack}
	}
	return answer{}
}

// ids answers the calls about the ids of the calling task.
func (s *supervisor) ids(c *call) answer {
	if !s.tasks.changed.Load() && s.tasks.root {
		switch c.op { // the kernel knows: the first task is root, and nobody was anybody else
		case opGetUID, opGetEUID, opGetGID, opGetEGID, opGetresUID, opGetresGID:
			return proceed
		}
	}
	have := s.tasks.of(s, c)
	u, g, root, rootG := have.uids(), have.gids(), have.may(capSetUID), have.may(capSetGID)
	set := func(n creds, errno syscall.Errno) answer {
		if errno != 0 || n == have {
			return answer{errno: errno}
		}
		if err := s.become(c, n); err != nil {
			return failed(err)
		}
		return answer{}
	}
	setU := func(i ids, errno syscall.Errno) answer { return set(have.withUIDs(i), errno) }
	setG := func(i ids, errno syscall.Errno) answer { return set(have.withGIDs(i), errno) }
	id := c.idArg
	switch c.op {
	case opGetUID:
		return c.asID(u.r)
	case opGetEUID:
		return c.asID(u.e)
	case opGetGID:
		return c.asID(g.r)
	case opGetEGID:
		return c.asID(g.e)
	case opGetresUID:
		return s.putIDs(c, u)
	case opGetresGID:
		return s.putIDs(c, g)
	case opGetgroups:
		return s.getgroups(c, have.groupList())
	case opSetUID:
		return setU(u.set(id(0), root))
	case opSetGID:
		return setG(g.set(id(0), rootG))
	case opSetreUID:
		return setU(u.setre(id(0), id(1), root))
	case opSetreGID:
		return setG(g.setre(id(0), id(1), rootG))
	case opSetresUID:
		return setU(u.setres(id(0), id(1), id(2), root))
	case opSetresGID:
		return setG(g.setres(id(0), id(1), id(2), rootG))
	case opSetfsUID, opSetfsGID:
		a, old := answer{}, u.fs
		if c.op == opSetfsUID {
			a = setU(u.setfs(id(0), root), 0)
		} else {
			old = g.fs
			a = setG(g.setfs(id(0), rootG), 0)
		}
		if a.errno == 0 {
			a = c.asID(old)
		}
		return a
	case opSetgroups:
		return s.setgroups(c, have, set)
	}
	return proceed
}

// asID is an id as a result; one that does not fit 16 bits is the kernel's overflow id.
func (c *call) asID(v uint32) answer {
	if c.short && v > 0xffff {
		v = 65534
	}
	return answer{val: int64(v)}
}

func (c *call) appendID(b []byte, v uint32) []byte {
	if !c.short {
		return binary.NativeEndian.AppendUint32(b, v)
	}
	return binary.NativeEndian.AppendUint16(b, uint16(c.asID(v).val))
}

// putIDs is getresuid.
func (s *supervisor) putIDs(c *call, i ids) answer {
	for k, v := range []uint32{i.r, i.e, i.s} {
		if err := s.writeMemory(c, c.args[k], c.appendID(nil, v)); err != nil {
			return failed(err)
		}
	}
	return answer{}
}

func (s *supervisor) getgroups(c *call, groups []uint32) answer {
	size := int32(c.args[0])
	switch {
	case size < 0 || size > 0 && int(size) < len(groups):
		return answer{errno: unix.EINVAL}
	case size > 0 && len(groups) > 0:
		var b []byte
		for _, g := range groups {
			b = c.appendID(b, g)
		}
		if err := s.writeMemory(c, c.args[1], b); err != nil {
			return failed(err)
		}
	}
	return answer{val: int64(len(groups))}
}

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

func (s *supervisor) setgroups(c *call, have creds, set func(creds, syscall.Errno) answer) answer {
	n := int(uint32(c.args[0]))
	if !have.may(capSetGID) {
		return answer{errno: unix.EPERM}
	}
	if n > maxGroups {
		return answer{errno: unix.EINVAL}
	}
	size := 4
	if c.short {
		size = 2
	}
	b := make([]byte, n*size)
	if err := s.readMemory(c, c.args[1], b); err != nil {
		return failed(err)
	}
	groups := make([]uint32, n)
	for i := range groups {
		if c.short {
			groups[i] = uint32(binary.NativeEndian.Uint16(b[2*i:]))
		} else {
			groups[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
		if groups[i] == noID {
			return answer{errno: unix.EINVAL}
		}
	}
	have.groups = packGroups(groups)
	return set(have, 0)
}

// exec sees to set-uid and set-gid programs: who executes one is its owner from then on.
func (s *supervisor) exec(c *call) answer {
	f, err := s.file(c)
	have := s.tasks.of(s, c)
	if err != nil {
		// What /proc/self/exe is, only the kernel knows; a name that is not there is tried on the way to one that is.
		n := have
		n.keep, n.kept, n.caps = false, false, 0
		if n != have {
			_ = s.become(c, n) // it is dead
		}
		return proceed
	}
	defer f.close()
	uid, gid := noID, noID
	if m := f.st.Mode; m&unix.S_IFMT == unix.S_IFREG && m&0o111 != 0 && m&(unix.S_ISUID|unix.S_ISGID) != 0 &&
		s.inRootfs(f.fd) && !s.noNewPrivs(c) && !isScript(f) {
		o, _ := s.owners.of(s, f)
		if m&unix.S_ISUID != 0 {
			uid = o.UID
		}
		if m&(unix.S_ISGID|0o010) == unix.S_ISGID|0o010 {
			gid = o.GID
		}
	}
	if n := have.exec(uid, gid); n != have {
		_ = s.become(c, n) // it is dead
	}
	return proceed
}

func (s *supervisor) noNewPrivs(c *call) bool { return s.statusLine(c, "NoNewPrivs:") == "1" }

// statusLine is a line of /proc/TID/status.
func (s *supervisor) statusLine(c *call, key string) string {
	fd, err := unix.Openat(s.proc, c.tid+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	b := make([]byte, 8192)
	n, err := unix.Read(fd, b)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b[:n])) {
		if v, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// isScript: the kernel gives nobody's ids to scripts.
func isScript(f *file) bool {
	fd, err := unix.Open(f.path(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var head [2]byte
	n, err := unix.Read(fd, head[:])
	return err == nil && n == 2 && head == [2]byte{'#', '!'}
}

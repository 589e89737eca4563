package sandbox

import (
	"encoding/binary"
	"syscall"
)

// creds are the ids of a task as it believes them to be (credentials(7)). The value is comparable. Who may change
// which is the kernel's rule (kernel/sys.c); root here is who would have CAP_SETUID and CAP_SETGID.
type creds struct {
	ruid, euid, suid, fsuid uint32
	rgid, egid, sgid, fsgid uint32
	groups                  string // supplementary: 4 bytes each, little endian

	// Of capabilities(7) what lets a task that is not root any more change ids still (setpriv does).
	keep bool  // PR_SET_KEEPCAPS
	kept bool  // root's capabilities are permitted
	caps uint8 // and effective
}

// The capabilities that are asked for here, as bits of creds.caps.
const (
	capChown  = 1 << 0 // the bits of linux/capability.h
	capSetGID = 1 << 6
	capSetUID = 1 << 7
)

// noID is "leave it" where a call takes several ids, and never an id.
const noID = ^uint32(0)

// credsOf are those of a process that was started as a user.
func credsAs(uid, gid uint32, groups []uint32) creds {
	return creds{uid, uid, uid, uid, gid, gid, gid, gid, packGroups(groups), false, false, 0}
}

func packGroups(groups []uint32) string {
	b := make([]byte, 0, 4*len(groups))
	for _, g := range groups {
		b = binary.LittleEndian.AppendUint32(b, g)
	}
	return string(b)
}

func (c creds) groupList() []uint32 {
	out := make([]uint32, 0, len(c.groups)/4)
	for b := []byte(c.groups); len(b) >= 4; b = b[4:] {
		out = append(out, binary.LittleEndian.Uint32(b))
	}
	return out
}

func (c creds) privileged() bool { return c.euid == 0 }

// may says whether the task has a capability.
func (c creds) may(capability uint8) bool { return c.privileged() || c.caps&capability != 0 }

// inGroup says whether a file of group g is the task's group's.
func (c creds) inGroup(g uint32) bool {
	if c.fsgid == g {
		return true
	}
	for _, have := range c.groupList() {
		if have == g {
			return true
		}
	}
	return false
}

// ids is one of the two kinds, so that each rule stands once.
type ids struct{ r, e, s, fs uint32 }

func (c creds) uids() ids { return ids{c.ruid, c.euid, c.suid, c.fsuid} }
func (c creds) gids() ids { return ids{c.rgid, c.egid, c.sgid, c.fsgid} }

// withUIDs also sees to capabilities, as cap_emulate_setxuid does (security/commoncap.c).
func (c creds) withUIDs(i ids) creds {
	was, is := c.ruid == 0 || c.euid == 0 || c.suid == 0, i.r == 0 || i.e == 0 || i.s == 0
	if c.euid == 0 && i.e != 0 {
		c.kept, c.caps = true, 0
	}
	if was && !is && !c.keep || i.e == 0 {
		c.kept, c.caps = false, 0
	}
	c.ruid, c.euid, c.suid, c.fsuid = i.r, i.e, i.s, i.fs
	return c
}

func (c creds) withGIDs(i ids) creds { c.rgid, c.egid, c.sgid, c.fsgid = i.r, i.e, i.s, i.fs; return c }

// set is setuid(2) and setgid(2).
func (i ids) set(id uint32, root bool) (ids, syscall.Errno) {
	switch {
	case id == noID:
		return i, syscall.EINVAL
	case root:
		i.r, i.s = id, id
	case id != i.r && id != i.s:
		return i, syscall.EPERM
	}
	i.e, i.fs = id, id
	return i, 0
}

// setre is setreuid(2) and setregid(2).
func (i ids) setre(r, e uint32, root bool) (ids, syscall.Errno) {
	n := i
	if r != noID {
		n.r = r
		if r != i.r && r != i.e && !root {
			return i, syscall.EPERM
		}
	}
	if e != noID {
		n.e = e
		if e != i.r && e != i.e && e != i.s && !root {
			return i, syscall.EPERM
		}
	}
	if r != noID || e != noID && e != i.r {
		n.s = n.e
	}
	n.fs = n.e
	return n, 0
}

// setres is setresuid(2) and setresgid(2).
func (i ids) setres(r, e, s uint32, root bool) (ids, syscall.Errno) {
	n := i
	for _, f := range []struct {
		id uint32
		to *uint32
	}{{r, &n.r}, {e, &n.e}, {s, &n.s}} {
		if f.id == noID {
			continue
		}
		if f.id != i.r && f.id != i.e && f.id != i.s && !root {
			return i, syscall.EPERM
		}
		*f.to = f.id
	}
	n.fs = n.e
	return n, 0
}

// setfs is setfsuid(2) and setfsgid(2), which never fail.
func (i ids) setfs(id uint32, root bool) ids {
	if id != noID && (root || id == i.r || id == i.e || id == i.s || id == i.fs) {
		i.fs = id
	}
	return i
}

// exec is what execve(2) makes of the ids; uid and gid are the owner of a set-uid or set-gid file, else [noID].
func (c creds) exec(uid, gid uint32) creds {
	if uid != noID {
		c.euid = uid
	}
	if gid != noID {
		c.egid = gid
	}
	c.suid, c.fsuid, c.sgid, c.fsgid = c.euid, c.euid, c.egid, c.egid
	c.keep, c.kept, c.caps = false, false, 0
	return c
}

// mayChown says whether chown(2) of a file lets the task give it to uid:gid ([noID] leaves it).
func (c creds) mayChown(ownerUID, ownerGID, uid, gid uint32) bool {
	if c.may(capChown) {
		return true
	}
	if c.fsuid != ownerUID {
		return uid == noID && gid == noID
	}
	return (uid == noID || uid == ownerUID) && (gid == noID || gid == ownerGID || c.inGroup(gid))
}

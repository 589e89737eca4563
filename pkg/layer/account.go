package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// maxAccounts bounds what is read of a passwd or group file, in bytes; longer lines than maxAccountLine are skipped.
const (
	maxAccounts    = 10 << 20
	maxAccountLine = 64 << 10
)

// maxAccountID is the largest id that names an owner: -1 means "unchanged" to the kernel.
const maxAccountID = maxID - 1

// Account is what a process runs as.
type Account struct {
	UID, GID int
	Groups   []int // supplementary
	Home     string
	Name     string
}

type passwdLine struct {
	name, home string
	uid, gid   int
}

type groupLine struct {
	name    string
	gid     int
	members []string
}

// LookupOwner resolves "user[:group]" (names or numbers) in the image's
// /etc/passwd and /etc/group. A user by name without a group gets its primary group; a number without group gets group 0.
// A name the image does not have is ErrAccount.
func (v *View) LookupOwner(owner string) (uid, gid int, err error) {
	user, group, hasGroup := strings.Cut(owner, ":")
	if user == "" || hasGroup && group == "" {
		return 0, 0, fmt.Errorf("owner %q: %w", owner, fs.ErrInvalid)
	}
	uid, err = parseID(user)
	if errors.Is(err, strconv.ErrSyntax) {
		var p *passwdLine
		p, err = v.user(func(p *passwdLine) bool { return p.name == user })
		if err == nil && p == nil {
			err = fmt.Errorf("user %q: %w", user, ErrAccount)
		}
		if err == nil {
			uid, gid = p.uid, p.gid
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("owner %q: %w", owner, err)
	}
	if hasGroup {
		if gid, err = v.groupID(group); err != nil {
			return 0, 0, fmt.Errorf("owner %q: %w", owner, err)
		}
	}
	return uid, gid, nil
}

// UserByName looks a user up in /etc/passwd; ok is false when it is not there.
func (v *View) UserByName(name string) (uid, gid int, ok bool, err error) {
	p, err := v.user(func(p *passwdLine) bool { return p.name == name })
	if err != nil || p == nil {
		return 0, 0, false, err
	}
	return p.uid, p.gid, true, nil
}

// GroupByName looks a group up in /etc/group; ok is false when it is not there.
func (v *View) GroupByName(name string) (gid int, ok bool, err error) {
	g, err := v.groups(func(g *groupLine) bool { return g.name == name })
	if err != nil || len(g) == 0 {
		return 0, false, err
	}
	return g[0].gid, true, nil
}

func (v *View) groupID(group string) (int, error) {
	gid, err := parseID(group)
	if !errors.Is(err, strconv.ErrSyntax) {
		return gid, err
	}
	g, err := v.groups(func(g *groupLine) bool { return g.name == group })
	if err != nil {
		return 0, err
	}
	if len(g) == 0 {
		return 0, fmt.Errorf("group %q: %w", group, ErrAccount)
	}
	return g[0].gid, nil
}

// LookupUser resolves the user of a RUN or a config: "user[:group]", with supplementary groups and home. As
// the runtimes do: "" is 0, a number is always an id and need not be in the image, a group given
// means no supplementary groups, and otherwise they are those that list the user.
func (v *View) LookupUser(user string) (Account, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" {
		if hasGroup {
			return Account{}, fmt.Errorf("user %q: %w", user, fs.ErrInvalid)
		}
		name = "0"
	}
	uid, err := parseID(name)
	byName := errors.Is(err, strconv.ErrSyntax)
	if err != nil && !byName {
		return Account{}, fmt.Errorf("user %q: %w", user, err)
	}
	p, err := v.user(func(p *passwdLine) bool {
		if byName {
			return p.name == name
		}
		return p.uid == uid
	})
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", user, err)
	}
	a := Account{UID: uid, Home: "/"}
	switch {
	case p != nil:
		a = Account{UID: p.uid, GID: p.gid, Home: p.home, Name: p.name}
		if a.Home == "" {
			a.Home = "/"
		}
	case byName:
		return Account{}, fmt.Errorf("user %q: %w", user, ErrAccount)
	}
	if hasGroup {
		if a.GID, err = v.groupID(group); err != nil {
			return Account{}, fmt.Errorf("user %q: %w", user, err)
		}
		return a, nil
	}
	if a.Name == "" {
		return a, nil
	}
	list, err := v.groups(func(g *groupLine) bool { return slices.Contains(g.members, a.Name) })
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", user, err)
	}
	for _, g := range list {
		a.Groups = append(a.Groups, g.gid)
	}
	slices.Sort(a.Groups)
	a.Groups = slices.Compact(a.Groups)
	return a, nil
}

// parseID reads a number; what is none is strconv.ErrSyntax, one out of range another error.
func parseID(s string) (int, error) {
	if s == "" || s[0] == '+' {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, strconv.ErrSyntax
	}
	if err != nil || n < 0 || n > maxAccountID {
		return 0, fmt.Errorf("id %.40q is not between 0 and %d: %w", s, int64(maxAccountID), fs.ErrInvalid)
	}
	return int(n), nil
}

// user returns the first passwd line that ok accepts, or nil.
func (v *View) user(ok func(*passwdLine) bool) (*passwdLine, error) {
	var found *passwdLine
	err := v.lines("etc/passwd", func(f []string) bool {
		if len(f) < 4 {
			return true
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		p := &passwdLine{name: f[0], uid: uid, gid: gid}
		if len(f) > 5 {
			p.home = f[5]
		}
		if err1 == nil && err2 == nil && f[0] != "" && ok(p) {
			found = p
			return false
		}
		return true
	})
	return found, err
}

// groups returns the group lines that ok accepts.
func (v *View) groups(ok func(*groupLine) bool) (out []groupLine, err error) {
	err = v.lines("etc/group", func(f []string) bool {
		if len(f) < 3 {
			return true
		}
		gid, err := parseID(f[2])
		if err != nil || f[0] == "" {
			return true
		}
		g := groupLine{name: f[0], gid: gid}
		if len(f) > 3 {
			for m := range strings.SplitSeq(f[3], ",") {
				g.members = append(g.members, strings.TrimSpace(m))
			}
		}
		if ok(&g) {
			out = append(out, g)
		}
		return true
	})
	return out, err
}

// lines calls fn with the fields of each line until it returns false. A missing file has none; comments, empty
// and overlong lines are skipped.
func (v *View) lines(file string, fn func(fields []string) bool) error {
	e, ok := v.Stat(file)
	if !ok {
		return nil
	}
	if e.Type != '0' {
		return fmt.Errorf("/%s of the image: %w: not a regular file", file, fs.ErrInvalid)
	}
	r, err := v.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	br := bufio.NewReaderSize(io.LimitReader(r, maxAccounts), maxAccountLine)
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = br.ReadSlice('\n')
			}
			line = nil
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !fn(strings.Split(string(line), ":")) {
			return nil
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading /%s of the image: %w", file, err)
		}
	}
}

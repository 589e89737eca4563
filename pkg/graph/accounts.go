package graph

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrAccounts is the kind of errors of [Accounts.Apply].
var ErrAccounts = errors.New("accounts cannot be added")

// Accounts adds users and groups to /etc/passwd and /etc/group of input 0: a layer with these two files.
type Accounts struct {
	Groups []Group `json:"groups,omitempty"`
	Users  []User  `json:"users,omitempty"`
	Time   int64   `json:"time"` // mtime of the two files, seconds since the epoch
	At     string  `json:"-"`    // "rootfs.yaml:12:7" for messages
}

// Group is a line of /etc/group.
type Group struct {
	Name string `json:"name"`
	GID  int    `json:"gid"`
}

// User is a line of /etc/passwd, and a member of groups.
type User struct {
	Name    string   `json:"name"`
	UID     int      `json:"uid"`
	GID     int      `json:"gid"` // a group named as the user is made when no group has this number
	Groups  []string `json:"groups,omitempty"`
	Home    string   `json:"home"`
	Shell   string   `json:"shell"`
	Comment string   `json:"comment,omitempty"`
}

// Kind implements Op.
func (Accounts) Kind() string { return "accounts" }

// Apply returns the contents of /etc/passwd and /etc/group with the accounts added. Lines that are
// there stay as they are, byte by byte. An account that is there with the same numbers is left alone; one with
// other numbers, or a number that another account has, is an error of kind [ErrAccounts].
func (a Accounts) Apply(passwd, group []byte) (newPasswd, newGroup []byte, err error) {
	users, groups := parseTable(passwd), parseTable(group)
	for _, g := range a.Groups {
		if err := groups.add(g.Name, g.GID, fmt.Sprintf("%s:x:%d:", g.Name, g.GID), "group"); err != nil {
			return nil, nil, err
		}
	}
	for _, u := range a.Users {
		line := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s", u.Name, u.UID, u.GID, u.Comment, u.Home, u.Shell)
		if err := users.add(u.Name, u.UID, line, "user"); err != nil {
			return nil, nil, err
		}
		if groups.byID(u.GID) < 0 {
			if err := groups.add(u.Name, u.GID, fmt.Sprintf("%s:x:%d:", u.Name, u.GID), "group"); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, u := range a.Users {
		for _, name := range u.Groups {
			i := groups.byName(name)
			if i < 0 {
				return nil, nil, fmt.Errorf("%w: group %q of user %q is neither in the rootfs nor declared", ErrAccounts, name, u.Name)
			}
			groups.lines[i] = withMember(groups.lines[i], u.Name)
		}
	}
	return users.bytes(), groups.bytes(), nil
}

// table is a colon-separated file whose lines begin with name, password and number.
type table struct{ lines []string }

func parseTable(b []byte) *table {
	text := strings.TrimSuffix(string(b), "\n")
	if text == "" {
		return &table{}
	}
	return &table{lines: strings.Split(text, "\n")}
}

func (t *table) bytes() []byte {
	if len(t.lines) == 0 {
		return nil
	}
	return []byte(strings.Join(t.lines, "\n") + "\n")
}

func (t *table) byName(name string) int {
	for i, line := range t.lines {
		if n, _, ok := strings.Cut(line, ":"); ok && n == name {
			return i
		}
	}
	return -1
}

func (t *table) byID(id int) int {
	for i := range t.lines {
		if have, ok := t.id(i); ok && have == id {
			return i
		}
	}
	return -1
}

func (t *table) id(i int) (int, bool) {
	fields := strings.Split(t.lines[i], ":")
	if len(fields) < 3 {
		return 0, false
	}
	id, err := strconv.Atoi(fields[2])
	return id, err == nil
}

func (t *table) add(name string, id int, line, what string) error {
	if i := t.byName(name); i >= 0 {
		if have, ok := t.id(i); !ok || have != id {
			return fmt.Errorf("%w: %s %q exists already: %q", ErrAccounts, what, name, t.lines[i])
		}
		if what == "user" && !samePrimaryGroup(t.lines[i], line) {
			return fmt.Errorf("%w: user %q exists already with another group: %q", ErrAccounts, name, t.lines[i])
		}
		return nil
	}
	if i := t.byID(id); i >= 0 {
		return fmt.Errorf("%w: number %d of %s %q belongs to %q", ErrAccounts, id, what, name, t.lines[i])
	}
	t.lines = append(t.lines, line)
	return nil
}

func samePrimaryGroup(a, b string) bool {
	fa, fb := strings.Split(a, ":"), strings.Split(b, ":")
	return len(fa) > 3 && len(fb) > 3 && fa[3] == fb[3]
}

// withMember adds a user to the last field of a line of /etc/group.
func withMember(line, user string) string {
	fields := strings.Split(line, ":")
	for len(fields) < 4 {
		fields = append(fields, "")
	}
	for _, m := range strings.Split(fields[3], ",") {
		if m == user {
			return line
		}
	}
	if fields[3] != "" {
		fields[3] += ","
	}
	fields[3] += user
	return strings.Join(fields, ":")
}

package spec

import (
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

var configObject = object[config]{"config", []field[config]{
	{"entrypoint", func(d *decoder, v *config, n *node) { v.entrypoint = d.strings(n, "entrypoint") }},
	{"cmd", func(d *decoder, v *config, n *node) { v.cmd = d.strings(n, "cmd") }},
	{"env", func(d *decoder, v *config, n *node) { v.env = d.env(n, "config.env", envName) }},
	{"user", func(d *decoder, v *config, n *node) { v.user = d.owner(n, "user") }},
	{"workdir", func(d *decoder, v *config, n *node) { v.workdir = d.template(n, "workdir") }},
	{"labels", func(d *decoder, v *config, n *node) { v.labels = d.env(n, "labels", anyName) }},
	{"ports", func(d *decoder, v *config, n *node) { v.ports = d.ports(n) }},
	{"volumes", func(d *decoder, v *config, n *node) { v.volumes = d.templateList(n, "volumes") }},
	{"stop_signal", func(d *decoder, v *config, n *node) { v.stopSignal = d.signal(n) }},
	{"author", func(d *decoder, v *config, n *node) { v.author = d.str(n, "author") }},
}}

// ports reads "80", "80/tcp" or a range "8000-8010/udp"; they are written with their protocol.
func (d *decoder) ports(n *node) []string {
	out := []string{}
	d.list(n, "ports", func(item *node) {
		t := d.scalar(item, "an item of ports")
		if !t.set() {
			return
		}
		numbers, proto, ok := strings.Cut(t.s, "/")
		if !ok {
			proto = "tcp"
		}
		first, last, ranged := strings.Cut(numbers, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a == 0 || b < a || !decimal().MatchString(first) || !decimal().MatchString(last) ||
			proto != "tcp" && proto != "udp" && proto != "sctp" {
			d.r.at(item, `a number from 1 to 65535, with a protocol when it is not tcp: "53/udp"`, "%q is not a port", t.s)
			return
		}
		port := numbers + "/" + proto
		for _, have := range out {
			if have == port {
				return
			}
		}
		out = append(out, port)
	})
	return out
}

var signalName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(SIG[A-Z][A-Z0-9]*([+-][0-9]+)?|[1-9][0-9]?)$`) })

func (d *decoder) signal(n *node) text {
	t := d.scalar(n, "stop_signal")
	if t.set() && !signalName().MatchString(t.s) {
		d.r.at(n, `"SIGTERM", or a number`, "%q is not a signal", t.s)
		return text{}
	}
	return t
}

type user struct {
	graph.User
	name text
	gid  *int64
	uid  *int64
}

type group struct {
	name text
	gid  *int64
}

var accountsObject = object[accounts]{"accounts", []field[accounts]{
	{"groups", (*decoder).accountGroups},
	{"users", (*decoder).accountUsers},
}}

var groupObject = object[group]{"a group", []field[group]{
	{"name", func(d *decoder, v *group, n *node) { v.name = d.accountName(n) }},
	{"gid", func(d *decoder, v *group, n *node) { v.gid = d.id(n, "gid") }},
}}

var userObject = object[user]{"a user", []field[user]{
	{"name", func(d *decoder, v *user, n *node) { v.name = d.accountName(n) }},
	{"uid", func(d *decoder, v *user, n *node) { v.uid = d.id(n, "uid") }},
	{"gid", func(d *decoder, v *user, n *node) { v.gid = d.id(n, "gid") }},
	{"groups", func(d *decoder, v *user, n *node) {
		d.list(n, "groups", func(item *node) {
			if t := d.accountName(item); t.set() {
				v.Groups = append(v.Groups, t.s)
			}
		})
	}},
	{"home", func(d *decoder, v *user, n *node) { v.Home = d.accountPath(n, "home") }},
	{"shell", func(d *decoder, v *user, n *node) { v.Shell = d.accountPath(n, "shell") }},
	{"comment", func(d *decoder, v *user, n *node) {
		t := d.str(n, "comment")
		if strings.ContainsAny(t.s, ":\n\x00") {
			d.r.at(n, "", "a comment holds no colon and no line break")
		}
		v.Comment = t.s
	}},
}}

func (d *decoder) id(n *node, what string) *int64 {
	v := d.number(n, what, 0, maxID)
	return &v
}

var accountText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?$`) })

func (d *decoder) accountName(n *node) text {
	t := d.str(n, "a name")
	if t.set() && !accountText().MatchString(t.s) {
		d.r.at(n, "letters, digits, _, - and ., no digit first, at most 32", "%q is not a name of an account", t.s)
		return text{}
	}
	return t
}

func (d *decoder) accountPath(n *node, what string) string {
	t := d.str(n, what)
	if t.set() && (!strings.HasPrefix(t.s, "/") || strings.ContainsAny(t.s, ":\n\x00")) {
		d.r.at(n, "", "%s %q is not an absolute path", what, t.s)
	}
	return t.s
}

func (d *decoder) accounts(n *node) *accounts {
	v := &accounts{n: n}
	if accountsObject.decode(d, n, v) && len(v.users) == 0 && len(v.groups) == 0 && len(n.keys) == 0 {
		d.r.at(n, "", "accounts names no users and no groups")
	}
	return v
}

func (d *decoder) accountGroups(v *accounts, n *node) {
	d.list(n, "groups", func(item *node) {
		var g group
		if !groupObject.decode(d, item, &g) {
			return
		}
		d.require(item, "a group", "name", "gid")
		if g.name.set() && g.gid != nil {
			v.groups = append(v.groups, graph.Group{Name: g.name.s, GID: int(*g.gid)})
		}
	})
}

func (d *decoder) accountUsers(v *accounts, n *node) {
	d.list(n, "users", func(item *node) {
		u := user{User: graph.User{Home: "/", Shell: "/sbin/nologin"}}
		if !userObject.decode(d, item, &u) {
			return
		}
		d.require(item, "a user", "name", "uid")
		if !u.name.set() || u.uid == nil {
			return
		}
		if u.gid == nil {
			u.gid = u.uid
		}
		u.Name, u.UID, u.GID = u.name.s, int(*u.uid), int(*u.gid)
		v.users = append(v.users, u.User)
	})
}

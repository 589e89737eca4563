package image

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/graph"
)

// maxPorts is how many ports one range may stand for: all there are.
const maxPorts = 65535

// patchConfig lays p over the config's "config" object (image-spec, config.md).
func patchConfig(config *jsontree.Node, p graph.ConfigPatch, os string) error {
	if p.User != nil {
		setText(config, "User", *p.User)
	}
	if p.ExposedPorts != nil {
		ports, err := expandPorts(p.ExposedPorts)
		if err != nil {
			return err
		}
		if err := addKeys(config, "ExposedPorts", ports); err != nil {
			return err
		}
	}
	if p.Env != nil {
		if err := mergeEnv(config, p.Env, os); err != nil {
			return err
		}
	}
	if p.Entrypoint != nil {
		setList(config, "Entrypoint", p.Entrypoint)
		if p.Cmd == nil {
			config.Delete("Cmd")
		}
	}
	if p.Cmd != nil {
		setList(config, "Cmd", p.Cmd)
	}
	if p.Volumes != nil {
		volumes := slices.Sorted(slices.Values(p.Volumes))
		if slices.Contains(volumes, "") {
			return fmt.Errorf("%w: a volume's path is empty", ErrInvalid)
		}
		if err := addKeys(config, "Volumes", volumes); err != nil {
			return err
		}
	}
	if p.WorkingDir != nil {
		setText(config, "WorkingDir", *p.WorkingDir)
	}
	if len(p.Labels) > 0 {
		labels, err := objectAt(config, "Labels")
		if err != nil {
			return err
		}
		for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
			labels.Set(key, jsontree.NewString(p.Labels[key]))
		}
	}
	if p.StopSignal != nil {
		setText(config, "StopSignal", *p.StopSignal)
	}
	return nil
}

// setList sets a member, or takes it away when the list is empty.
func setList(n *jsontree.Node, key string, ss []string) {
	if len(ss) == 0 {
		n.Delete(key)
		return
	}
	n.Set(key, jsontree.NewStrings(ss))
}

// addKeys adds keys to the set (an object of empty objects) that is n's member.
func addKeys(n *jsontree.Node, member string, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	set, err := objectAt(n, member)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !set.Has(k) {
			set.Set(k, jsontree.NewObject())
		}
	}
	return nil
}

// mergeEnv replaces the variables of the config that env names, where they stand, and appends the others in order.
func mergeEnv(config *jsontree.Node, env []string, os string) error {
	have := config.Get("Env")
	if k := have.Kind(); k != jsontree.Array && k != jsontree.Null {
		return fmt.Errorf("%w: the base's config: Env is %s and no array", ErrInvalid, k)
	}
	same := func(a, b string) bool { return a == b }
	if os == "windows" { // where names of variables have no case
		same = strings.EqualFold
	}
	type variable struct {
		name string
		node *jsontree.Node
	}
	var all []variable
	for _, item := range have.Items() {
		text, ok := item.Text()
		if !ok {
			return fmt.Errorf("%w: the base's config: Env holds %s", ErrInvalid, item.Kind())
		}
		name, _, _ := strings.Cut(text, "=")
		all = append(all, variable{name, item})
	}
	for _, e := range env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			return fmt.Errorf("%w: the variable %q is not of the form NAME=value", ErrInvalid, e)
		}
		v := variable{name, jsontree.NewString(e)}
		at := slices.IndexFunc(all, func(o variable) bool { return same(o.name, name) })
		if at < 0 {
			all = append(all, v)
			continue
		}
		all[at] = v
		rest := slices.DeleteFunc(all[at+1:], func(o variable) bool { return same(o.name, name) })
		all = all[:at+1+len(rest)]
	}
	if len(all) == 0 {
		return nil
	}
	list := jsontree.NewArray()
	for _, v := range all {
		list.Append(v.node)
	}
	config.Set("Env", list)
	return nil
}

// expandPorts turns "80", "80/UDP" and "8000-8002/tcp" into sorted "80/tcp", "80/udp", ...
func expandPorts(specs []string) ([]string, error) {
	type port struct {
		number   int
		protocol string
	}
	set := make(map[port]bool)
	for _, spec := range specs {
		numbers, protocol, ok := strings.Cut(spec, "/")
		if !ok {
			protocol = "tcp"
		}
		protocol = strings.ToLower(protocol)
		first, last, isRange := strings.Cut(numbers, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if errFrom != nil || errTo != nil || from == 0 || to < from || protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
			return nil, fmt.Errorf("%w: the port %q is not of the form PORT[-PORT][/tcp|/udp|/sctp], 1 to %d", ErrInvalid, spec, maxPorts)
		}
		for n := from; n <= to; n++ {
			set[port{int(n), protocol}] = true
		}
	}
	ports := slices.SortedFunc(maps.Keys(set), func(a, b port) int {
		if a.number != b.number {
			return a.number - b.number
		}
		return strings.Compare(a.protocol, b.protocol)
	})
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, strconv.Itoa(p.number)+"/"+p.protocol)
	}
	return out, nil
}

// unsetEnv takes variables out of the config.
func unsetEnv(config *jsontree.Node, names []string, os string) error {
	have := config.Get("Env")
	if len(names) == 0 || have.Kind() == jsontree.Null {
		return nil
	}
	if have.Kind() != jsontree.Array {
		return fmt.Errorf("%w: the config: Env is %s and no array", ErrInvalid, have.Kind())
	}
	list := jsontree.NewArray()
	for _, item := range have.Items() {
		text, _ := item.Text()
		name, _, _ := strings.Cut(text, "=")
		gone := slices.ContainsFunc(names, func(n string) bool {
			return n == name || os == "windows" && strings.EqualFold(n, name)
		})
		if !gone {
			list.Append(item)
		}
	}
	if len(list.Items()) == 0 {
		config.Delete("Env")
		return nil
	}
	config.Set("Env", list)
	return nil
}

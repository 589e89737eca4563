package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// documents compares two JSON documents but for some of their members. nil is a document without any.
func documents(a, b []byte, but ...string) ([]Change, error) {
	var trees [2]*jsontree.Node
	for i, raw := range [][]byte{a, b} {
		trees[i] = jsontree.NewObject()
		if raw == nil {
			continue
		}
		t, err := jsontree.Parse(raw)
		if err != nil {
			return nil, err
		}
		for _, key := range but {
			t.Delete(key)
		}
		trees[i] = t
	}
	var out []Change
	compare(&out, "", trees[0], trees[1])
	return out, nil
}

// compare lists the differences below path.
func compare(out *[]Change, path string, a, b *jsontree.Node) {
	switch {
	case a != nil && b != nil && string(a.Bytes()) == string(b.Bytes()):
	case a.Kind() == jsontree.Object && b.Kind() == jsontree.Object:
		members(out, path, a.Keys(), b.Keys(), a.Get, b.Get)
	case path == "config.Env" && environment(a) != nil && environment(b) != nil:
		x, y := environment(a), environment(b)
		members(out, path, x.Keys(), y.Keys(), x.Get, y.Get)
		if len(*out) == 0 { // the order alone
			*out = append(*out, Change{Path: path, A: text(a), B: text(b)})
		}
	case a.Kind() == jsontree.Array && b.Kind() == jsontree.Array && (deep(a) || deep(b)):
		x, y := a.Items(), b.Items()
		for i := range max(len(x), len(y)) {
			var l, r *jsontree.Node
			if i < len(x) {
				l = x[i]
			}
			if i < len(y) {
				r = y[i]
			}
			compare(out, fmt.Sprintf("%s[%d]", path, i), l, r)
		}
	default:
		*out = append(*out, Change{Path: path, A: text(a), B: text(b)})
	}
}

func members(out *[]Change, path string, a, b []string, x, y func(string) *jsontree.Node) {
	keys := slices.Clone(a)
	for _, k := range b {
		if !slices.Contains(a, k) {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		at := k
		if path != "" {
			at = path + "." + k
		}
		compare(out, at, x(k), y(k))
	}
}

// environment reads a list of variables as an object; nil when it is none, or names one twice.
func environment(n *jsontree.Node) *jsontree.Node {
	if n.Kind() != jsontree.Array {
		return nil
	}
	out := jsontree.NewObject()
	for _, item := range n.Items() {
		s, ok := item.Text()
		name, value, found := strings.Cut(s, "=")
		if !ok || !found || out.Has(name) {
			return nil
		}
		out.Set(name, jsontree.NewString(value))
	}
	return out
}

// deep reports whether a list holds more than plain values.
func deep(n *jsontree.Node) bool {
	return slices.ContainsFunc(n.Items(), func(i *jsontree.Node) bool {
		return i.Kind() == jsontree.Object || i.Kind() == jsontree.Array
	})
}

// text is a value as JSON; "" when it is not there.
func text(n *jsontree.Node) string {
	if n == nil {
		return ""
	}
	return string(n.Bytes())
}

func quoted(s string, there bool) string {
	if !there {
		return ""
	}
	return text(jsontree.NewString(s))
}

package index

import (
	"fmt"
	"maps"
	"slices"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// setText sets a member that is a string, or removes it when there is none.
func setText(n *jsontree.Node, key, value string) {
	if value == "" {
		n.Delete(key)
		return
	}
	if now, ok := n.Get(key).Text(); !ok || now != value {
		n.Set(key, jsontree.NewString(value))
	}
}

// setList sets a member that is a list of strings, or removes it when there are none.
func setList(n *jsontree.Node, key string, values []string) {
	if len(values) == 0 {
		n.Delete(key)
		return
	}
	n.Set(key, jsontree.NewStrings(values))
}

// annotate changes the annotations of an index or of one of its entries. New ones follow in lexical order.
func annotate(n *jsontree.Node, set map[string]string, remove []string) error {
	have := n.Get("annotations")
	switch have.Kind() {
	case jsontree.Object:
	case jsontree.Null:
		have = jsontree.NewObject()
	default:
		return fmt.Errorf("%w: its annotations are %s", ErrInvalid, have.Kind())
	}
	for _, key := range remove {
		have.Delete(key)
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if key == "" {
			return fmt.Errorf("%w: an annotation has no name", ErrInvalid)
		}
		if now, ok := have.Get(key).Text(); !ok || now != set[key] {
			have.Set(key, jsontree.NewString(set[key]))
		}
	}
	if len(have.Keys()) == 0 {
		n.Delete("annotations")
	} else if n.Get("annotations") != have {
		n.Set("annotations", have)
	}
	return nil
}

package image

import (
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// setHistory keeps the base's history and appends an entry for each new layer, so that the entries that are not empty
// are as many as the layers. Where the base's history is too short, entries that name no command fill it up; where it
// is too long, the surplus is marked empty_layer (as BuildKit does).
func setHistory(tree *jsontree.Node, layers []Layer, created int64) error {
	have := tree.Get("history")
	if k := have.Kind(); k != jsontree.Array && k != jsontree.Null {
		return fmt.Errorf("%w: the base's config: history is %s and no array", ErrInvalid, k)
	}
	base := have.Items()
	made := false
	for _, l := range layers {
		made = made || l.History != nil
	}
	if len(base) == 0 && !made {
		return nil // no history at all is consistent as well
	}
	out := jsontree.NewArray()
	// next moves the base's entries over up to the one of its next layer.
	next := func() bool {
		for len(base) > 0 {
			entry := base[0]
			base = base[1:]
			out.Append(entry)
			if !isEmpty(entry) {
				return true
			}
		}
		return false
	}
	// rest moves over what stands behind the base's last layer.
	rest := func() {
		for _, entry := range base {
			if entry.Kind() == jsontree.Object && !isEmpty(entry) {
				entry.Set("empty_layer", jsontree.NewBool(true))
			}
			out.Append(entry)
		}
		base = nil
	}
	for _, l := range layers {
		if l.History == nil {
			if !next() {
				out.Append(entryOf(ocispec.History{}, created))
			}
			continue
		}
		rest()
		out.Append(entryOf(*l.History, created))
	}
	rest()
	tree.Set("history", out)
	return nil
}

func isEmpty(entry *jsontree.Node) bool { return string(entry.Get("empty_layer").Bytes()) == "true" }

// entryOf writes h with the image's time and our comment where it has none.
func entryOf(h ocispec.History, created int64) *jsontree.Node {
	n := jsontree.NewObject()
	if h.Created != nil {
		n.Set("created", jsontree.NewString(h.Created.UTC().Format(time.RFC3339Nano)))
	} else {
		n.Set("created", jsontree.NewString(timestamp(created)))
	}
	setText(n, "created_by", h.CreatedBy)
	setText(n, "author", h.Author)
	if h.Comment == "" {
		h.Comment = Comment
	}
	setText(n, "comment", h.Comment)
	return n
}

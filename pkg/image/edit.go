package image

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/index"
)

// Edit is a change of the config of an image that exists. The zero value changes nothing.
type Edit struct {
	graph.ConfigPatch
	UnsetEnv, UnsetLabels, UnsetPorts, UnsetVolumes []string
	Platform                                        index.PlatformPatch
	Created                                         *time.Time
}

// EditConfig returns a config with a change. What is not changed keeps its order and its fields, known here or not; a
// config that nothing changed in keeps its very bytes.
func EditConfig(raw []byte, e Edit) ([]byte, error) {
	c, err := OpenConfig(raw)
	if err != nil {
		return nil, err
	}
	if err := c.Apply(e); err != nil {
		return nil, err
	}
	return c.Bytes(), nil
}

// ConfigEditor changes a config.
type ConfigEditor struct {
	raw  []byte
	read string // the same, compact
	tree *jsontree.Node
}

// OpenConfig starts to edit a config.
func OpenConfig(raw []byte) (*ConfigEditor, error) {
	var known ocispec.Image
	tree, err := jsontree.Decode(raw, &known)
	if err != nil {
		return nil, fmt.Errorf("%w: the config: %w", ErrInvalid, err)
	}
	if tree.Kind() != jsontree.Object {
		return nil, fmt.Errorf("%w: the config is %s and no object", ErrInvalid, tree.Kind())
	}
	return &ConfigEditor{raw: raw, read: string(tree.Bytes()), tree: tree}, nil
}

// Bytes returns the config with all changes.
func (c *ConfigEditor) Bytes() []byte {
	if out := c.tree.Bytes(); string(out) != c.read {
		return out
	}
	return c.raw
}

// Apply makes a change.
func (c *ConfigEditor) Apply(e Edit) error {
	if e.Created != nil {
		c.tree.Set("created", jsontree.NewString(e.Created.UTC().Format(time.RFC3339Nano)))
	}
	if e.Author != nil {
		setText(c.tree, "author", *e.Author)
	}
	if err := c.setPlatform(e.Platform); err != nil {
		return err
	}
	had := c.tree.Get("config").Kind() == jsontree.Object
	config, err := objectAt(c.tree, "config")
	if err != nil {
		return err
	}
	os, _ := c.tree.Get("os").Text()
	if err := patchConfig(config, e.ConfigPatch, os); err != nil {
		return err
	}
	if err := unsetEnv(config, e.UnsetEnv, os); err != nil {
		return err
	}
	for member, keys := range map[string][]string{"Labels": e.UnsetLabels, "ExposedPorts": nil, "Volumes": e.UnsetVolumes} {
		if member == "ExposedPorts" {
			if keys, err = expandPorts(e.UnsetPorts); err != nil {
				return err
			}
		}
		if err := dropKeys(config, member, keys); err != nil {
			return err
		}
	}
	if !had && len(config.Keys()) == 0 {
		c.tree.Delete("config")
	}
	return nil
}

func (c *ConfigEditor) setPlatform(p index.PlatformPatch) error {
	if p.IsZero() {
		return nil
	}
	var now ocispec.Image
	if err := c.tree.Decode(&now); err != nil {
		return fmt.Errorf("%w: the config: %w", ErrInvalid, err)
	}
	// An entry of an index spells a platform with the same names.
	e, err := index.NewEntry(ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(c.raw), Platform: &now.Platform,
	})
	if err != nil {
		return err
	}
	if e, err = e.SetPlatform(p); err != nil {
		return err
	}
	setText(c.tree, "architecture", e.Platform.Architecture)
	setText(c.tree, "variant", e.Platform.Variant)
	setText(c.tree, "os", e.Platform.OS)
	setText(c.tree, "os.version", e.Platform.OSVersion)
	setList(c.tree, "os.features", e.Platform.OSFeatures)
	return nil
}

// dropKeys takes keys out of the object that is n's member, and the object when it is empty by that.
func dropKeys(n *jsontree.Node, member string, keys []string) error {
	if len(keys) == 0 || !n.Has(member) {
		return nil
	}
	set, err := objectAt(n, member)
	if err != nil {
		return err
	}
	for _, k := range keys {
		set.Delete(k)
	}
	if len(set.Keys()) == 0 {
		n.Delete(member)
	}
	return nil
}

// DiffIDs returns those of the config's layers.
func (c *ConfigEditor) DiffIDs() ([]digest.Digest, error) {
	var known ocispec.Image
	if err := c.tree.Decode(&known); err != nil {
		return nil, fmt.Errorf("%w: the config: %w", ErrInvalid, err)
	}
	return known.RootFS.DiffIDs, nil
}

// Append adds layers on top, each with an entry of the history. An entry without a time gets that of the image.
func (c *ConfigEditor) Append(ids []digest.Digest, history []ocispec.History) error {
	rootfs, err := objectAt(c.tree, "rootfs")
	if err != nil {
		return err
	}
	list := rootfs.Get("diff_ids")
	if k := list.Kind(); k != jsontree.Array && k != jsontree.Null {
		return fmt.Errorf("%w: the config: diff_ids is %s and no array", ErrInvalid, k)
	}
	had := len(list.Items())
	all := jsontree.NewArray(list.Items()...)
	for _, id := range ids {
		all.Append(jsontree.NewString(id.String()))
	}
	rootfs.Set("type", jsontree.NewString("layers"))
	rootfs.Set("diff_ids", all)
	entries, err := c.history(had)
	if err != nil {
		return err
	}
	for _, h := range history {
		entries = append(entries, c.entry(h))
	}
	c.tree.Set("history", jsontree.NewArray(entries...))
	return nil
}

// Squash says that the image is one layer.
func (c *ConfigEditor) Squash(id digest.Digest, h ocispec.History) error {
	rootfs, err := objectAt(c.tree, "rootfs")
	if err != nil {
		return err
	}
	rootfs.Set("type", jsontree.NewString("layers"))
	rootfs.Set("diff_ids", jsontree.NewStrings([]string{id.String()}))
	c.tree.Set("history", jsontree.NewArray(c.entry(h)))
	return nil
}

// Rebase puts the layers and the history of another base in the place of the lowest n layers; the platform is the new
// base's where it says more.
func (c *ConfigEditor) Rebase(n int, base *ConfigEditor) error {
	mine, err := c.DiffIDs()
	if err != nil {
		return err
	}
	theirs, err := base.DiffIDs()
	if err != nil {
		return err
	}
	if n > len(mine) {
		return fmt.Errorf("%w: the image has %d layers, and %d would be replaced", ErrInvalid, len(mine), n)
	}
	all := jsontree.NewArray()
	for _, id := range append(append([]digest.Digest{}, theirs...), mine[n:]...) {
		all.Append(jsontree.NewString(id.String()))
	}
	own, err := c.history(len(mine))
	if err != nil {
		return err
	}
	entries, err := base.history(len(theirs))
	if err != nil {
		return err
	}
	rootfs, err := objectAt(c.tree, "rootfs")
	if err != nil {
		return err
	}
	rootfs.Set("type", jsontree.NewString("layers"))
	rootfs.Set("diff_ids", all)
	c.tree.Set("history", jsontree.NewArray(append(entries, above(own, n)...)...))
	for _, key := range []string{"os.version", "os.features", "variant"} {
		if v := base.tree.Get(key); v != nil {
			c.tree.Set(key, v)
		}
	}
	return nil
}

// above returns the entries of a history behind that of its n-th layer.
func above(entries []*jsontree.Node, n int) []*jsontree.Node {
	for i, e := range entries {
		if n == 0 {
			return entries[i:]
		}
		if !isEmpty(e) {
			n--
		}
	}
	return nil
}

// history returns the entries, filled up so that those which are not empty are as many as the layers.
func (c *ConfigEditor) history(layers int) ([]*jsontree.Node, error) {
	have := c.tree.Get("history")
	if k := have.Kind(); k != jsontree.Array && k != jsontree.Null {
		return nil, fmt.Errorf("%w: the config: history is %s and no array", ErrInvalid, k)
	}
	var out []*jsontree.Node
	n := 0
	for _, e := range have.Items() {
		if !isEmpty(e) {
			if n++; n > layers && e.Kind() == jsontree.Object {
				e.Set("empty_layer", jsontree.NewBool(true))
			}
		}
		out = append(out, e)
	}
	for ; n < layers; n++ {
		out = append(out, c.entry(ocispec.History{}))
	}
	return out, nil
}

// entry writes h, with the image's time where it has none.
func (c *ConfigEditor) entry(h ocispec.History) *jsontree.Node {
	if h.Created == nil {
		at := time.Unix(0, 0)
		if text, ok := c.tree.Get("created").Text(); ok {
			if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
				at = t
			}
		}
		h.Created = &at
	}
	return entryOf(h, 0)
}

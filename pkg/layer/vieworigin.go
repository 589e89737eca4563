package layer

// Origin is where a file of a merged tree comes from.
type Origin struct {
	Name  string // clean; hard links have several names and one Entry
	Layer int    // whose data it is, from 0; -1: no entry describes it (an implicit directory of no layer)
	Made  int    // the layer that gave it this name: of a hard link it may be another
	Entry *Entry // of the table of contents; not to be changed
}

// Origin returns what path is, the last symlink followed or not; ok is false when there is nothing.
func (v *View) Origin(path string, follow bool) (o Origin, ok bool) {
	n, missing, err := v.t.walk(path, follow)
	if err != nil || missing != "" {
		return Origin{}, false
	}
	return n.origin(n.path()), true
}

func (n *node) origin(name string) Origin {
	return Origin{Name: name, Layer: n.ino.src, Made: n.layer, Entry: n.ino.e}
}

// Each calls fn for every name in the tree, parents first, by name.
func (v *View) Each(fn func(Origin) error) error {
	return v.t.root.each(".", fn)
}

func (n *node) each(name string, fn func(Origin) error) error {
	if err := fn(n.origin(name)); err != nil {
		return err
	}
	for _, kid := range n.sortedKids() {
		if err := kid.each(joinName(name, kid.name), fn); err != nil {
			return err
		}
	}
	return nil
}

// Names lists what the directory path holds, sorted; nothing when it is none.
func (v *View) Names(path string) []string {
	n, missing, err := v.t.walk(path, true)
	if err != nil || missing != "" {
		return nil
	}
	kids := n.sortedKids()
	out := make([]string, len(kids))
	for i, kid := range kids {
		out[i] = kid.name
	}
	return out
}

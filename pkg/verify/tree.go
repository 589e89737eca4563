package verify

import (
	"archive/tar"
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// Layer is one layer of an image. The zero value is one that could not be read.
type Layer struct {
	TOC   *layer.TOC
	Facts *facts.Layer
}

// tree is the merged tree of an image and what its files say.
type tree struct {
	view   *layer.View
	layers []Layer
	lower  map[string]string // windows: names by their lower-case form
}

func newTree(layers []Layer) (*tree, error) {
	sources := make([]layer.Source, len(layers))
	for i, l := range layers {
		toc := l.TOC
		if toc == nil {
			toc = &layer.TOC{}
		}
		sources[i] = layer.Source{TOC: toc}
	}
	view, err := layer.NewView(sources)
	if err != nil {
		return nil, err
	}
	return &tree{view: view, layers: layers}, nil
}

// file is a name in the tree.
type file struct {
	layer.Origin
	facts *facts.File // nil: it says nothing
}

func (f file) exe() *exe.File {
	if f.facts == nil {
		return nil
	}
	return f.facts.Exe
}

func (f file) isRegular() bool  { return f.Entry.Type == tar.TypeReg }
func (f file) isDir() bool      { return f.Entry.Type == tar.TypeDir }
func (f file) executable() bool { return f.Entry.Mode&0o111 != 0 }

// abs is the file's name for people.
func (f file) abs() string { return "/" + f.Name }

// get finds a file; symlinks are followed inside of the image.
func (t *tree) get(name string) (file, bool) {
	o, ok := t.view.Origin(name, true)
	if !ok {
		return file{}, false
	}
	return t.file(o), true
}

func (t *tree) file(o layer.Origin) file {
	f := file{Origin: o}
	if o.Layer >= 0 && o.Layer < len(t.layers) && o.Entry.Type == tar.TypeReg && o.Entry.Size > 0 {
		if l := t.layers[o.Layer].Facts; l != nil {
			f.facts, _ = l.Find(o.Entry.Offset)
		}
	}
	return f
}

// text is a small file of the loader's configuration.
func (t *tree) text(name string) (string, bool) {
	f, ok := t.get(name)
	if !ok || f.facts == nil {
		return "", ok
	}
	return f.facts.Text, true
}

// lookWindows finds a file of a Windows image: its tree stands in Files, and case does not matter.
func (t *tree) lookWindows(name string) (file, bool) {
	if t.lower == nil {
		t.lower = map[string]string{}
		_ = t.view.Each(func(o layer.Origin) error {
			t.lower[strings.ToLower(o.Name)] = o.Name
			return nil
		})
	}
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	if len(name) > 1 && name[1] == ':' {
		name = name[2:]
	}
	name = strings.Trim(path.Clean("/"+name), "/")
	for _, candidate := range []string{"files/" + name, "files/" + name + ".exe", name, name + ".exe"} {
		if real, ok := t.lower[candidate]; ok {
			return t.get(real)
		}
	}
	return file{}, false
}

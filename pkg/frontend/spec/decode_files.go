package spec

import (
	"strconv"
	"strings"
	"time"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

var fileObject = object[file]{"files", []field[file]{
	{"path", func(d *decoder, v *file, n *node) { v.path = d.template(n, "path") }},
	{"source", func(d *decoder, v *file, n *node) { v.source = d.template(n, "source") }},
	{"context", func(d *decoder, v *file, n *node) { v.context = d.str(n, "context") }},
	{"content", func(d *decoder, v *file, n *node) { v.content = d.content(n) }},
	{"expand", func(d *decoder, v *file, n *node) { v.expand = d.boolean(n, "expand") }},
	{"type", func(d *decoder, v *file, n *node) { v.typ = text{d.oneOf(n, "type", fileTypes...), n} }},
	{"mode", func(d *decoder, v *file, n *node) { v.mode = d.mode(n, "mode") }},
	{"dir_mode", func(d *decoder, v *file, n *node) { v.dirMode = d.mode(n, "dir_mode") }},
	{"owner", func(d *decoder, v *file, n *node) { v.owner = d.owner(n, "owner") }},
	{"target", func(d *decoder, v *file, n *node) { v.target = d.template(n, "target") }},
	{"major", func(d *decoder, v *file, n *node) { v.major = d.number(n, "major", 0, 1<<12-1) }},
	{"minor", func(d *decoder, v *file, n *node) { v.minor = d.number(n, "minor", 0, 1<<20-1) }},
	{"xattrs", func(d *decoder, v *file, n *node) { v.xattrs = d.xattrs(n) }},
	{"mtime", func(d *decoder, v *file, n *node) { v.mtime = d.mtime(n) }},
}}

// fileTypes are the values of type, in the order of docs/spec.md.
var fileTypes = []string{
	string(graph.TypeFile), string(graph.TypeDirectory), string(graph.TypeSymlink), string(graph.TypeHardlink),
	string(graph.TypeFifo), string(graph.TypeChar), string(graph.TypeBlock),
}

// fileKeys are the keys that go with each type, besides path, type, owner, mtime and xattrs.
var fileKeys = map[string][]string{
	"file":      {"source", "context", "content", "expand", "mode", "dir_mode"},
	"directory": {"source", "context", "mode", "dir_mode"},
	"symlink":   {"target"},
	"hardlink":  {"target"},
	"fifo":      {"mode"},
	"char":      {"mode", "major", "minor"},
	"block":     {"mode", "major", "minor"},
}

func (d *decoder) files(n *node) []*file {
	out := []*file{}
	d.list(n, "files", func(item *node) {
		f := &file{n: item, keys: map[string]*node{}}
		before := d.mistakes()
		if item.kind != kindMap {
			d.wrong(item, "an entry of files", "a mapping")
		} else if fileObject.decode(d, item, f) {
			for _, k := range item.keys {
				f.keys[k.text] = k
			}
			d.checkFile(f)
		}
		f.bad = d.mistakes() > before
		out = append(out, f)
	})
	return out
}

// checkFile checks which keys are there together and settles the type.
func (d *decoder) checkFile(f *file) {
	if f.keys["path"] == nil {
		d.r.at(f.n, "", "an entry of files has no path")
	}
	source, content := f.keys["source"], f.keys["content"]
	if source != nil && content != nil {
		d.r.at(content, "remove one of them", "source and content in one entry")
		return
	}
	kind := f.typ.s
	switch {
	case f.keys["type"] != nil && kind == "": // reported
		return
	case kind == "" && (source != nil || content != nil):
		kind = "file"
	case kind == "" && f.keys["target"] != nil:
		d.r.at(f.n, `add "type: symlink" or "type: hardlink"`, "an entry with a target has no type")
		return
	case kind == "":
		d.r.at(f.n, "", "an entry of files has source, content or type")
		return
	case kind == "file" && source == nil && content == nil:
		d.r.at(f.n, `content: "" makes an empty file`, "a file has source or content")
	case (kind == "symlink" || kind == "hardlink") && f.keys["target"] == nil:
		d.r.at(f.n, "", "a %s has a target", kind)
	case (kind == "char" || kind == "block") && (f.keys["major"] == nil || f.keys["minor"] == nil):
		d.r.at(f.n, "", "a %s device has major and minor", kind)
	}
	if kind == "hardlink" && f.keys["owner"] != nil {
		d.r.at(f.keys["owner"], "the linked file has the owner", "a hardlink has no owner of its own")
	}
	if kind == "hardlink" && f.keys["xattrs"] != nil {
		d.r.at(f.keys["xattrs"], "the linked file has them", "a hardlink has no xattrs of its own")
	}
	for _, k := range f.n.keys {
		if !allowed(kind, k.text) {
			d.r.at(k, "", "%s does not go with type %s", k.text, kind)
		}
	}
	if kind != "file" && kind != "directory" && kind != "hardlink" {
		for name := range f.xattrs {
			if strings.HasPrefix(name, "user.") {
				d.r.at(f.keys["xattrs"], "", "the kernel keeps user attributes of files and directories only, not of a %s", kind)
				break
			}
		}
	}
	if f.keys["context"] != nil && source == nil && allowed(kind, "context") {
		d.r.at(f.keys["context"], "", "context goes with source")
	}
	if f.keys["dir_mode"] != nil && source == nil && allowed(kind, "dir_mode") {
		d.r.at(f.keys["dir_mode"], "use mode", "dir_mode goes with source")
	}
	if f.keys["expand"] != nil && content == nil && allowed(kind, "expand") {
		d.r.at(f.keys["expand"], "", "expand goes with content")
	}
	if f.expand && f.content.set() {
		f.body = d.newTemplate(f.content)
	}
}

// allowed reports whether key goes with a type. Unknown keys were reported already.
func allowed(kind, key string) bool {
	for _, kinds := range fileKeys {
		for _, k := range kinds {
			if k != key {
				continue
			}
			for _, mine := range fileKeys[kind] {
				if mine == key {
					return true
				}
			}
			return false
		}
	}
	return true
}

// content reads the bytes of a file, any bytes: a string, or base64 with !!binary.
func (d *decoder) content(n *node) text {
	if n.kind == kindBinary || n.kind == kindString {
		return text{n.text, n}
	}
	return d.str(n, "content")
}

// xattrs reads extended attributes. Overlay's own would change what lower layers show, and ours how owners are read.
func (d *decoder) xattrs(n *node) map[string]string {
	out := map[string]string{}
	d.pairs(n, "xattrs", func(k, v *node) {
		name := k.text
		prefix, rest, ok := strings.Cut(name, ".")
		switch {
		case !ok || rest == "" || len(name) > 255 || strings.ContainsRune(name, 0) ||
			prefix != "user" && prefix != "security" && prefix != "trusted" && prefix != "system":
			d.r.at(k, "user., security., trusted. or system. and a name", "%q is not a name of an extended attribute", name)
			return
		case strings.HasPrefix(rest, "overlay.") || strings.HasPrefix(name, "user.manifestctl."):
			d.r.at(k, "", "the extended attribute %q is reserved", name)
			return
		}
		switch v.kind {
		case kindString, kindBinary:
			if len(v.text) > 1<<16 {
				d.r.at(v, "", "the value of %q is larger than 64 KiB", name)
				return
			}
			out[name] = v.text
		default:
			d.r.at(v, "quote it, or base64 with !!binary", "the value of %q must be a string, this is %s", name, v.kind)
		}
	})
	return out
}

// maxTime is the end of the year 9999, in seconds since the epoch.
const maxTime = 253402300799

// mtime reads seconds since the epoch or RFC 3339.
func (d *decoder) mtime(n *node) *int64 {
	if n.kind == kindNumber && decimal().MatchString(n.text) {
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err == nil && v <= maxTime {
			return &v
		}
	}
	if n.kind == kindString {
		t, err := time.Parse(time.RFC3339, n.text)
		if v := t.Unix(); err == nil && v >= 0 && v <= maxTime {
			return &v
		}
	}
	d.r.at(n, `seconds since 1970, or "2024-01-31T12:00:00Z"`, "%q is not a time", clean(n.text))
	return nil
}

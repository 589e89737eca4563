package spec

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// field is one key of an object: how its value gets into a T.
type field[T any] struct {
	name string
	set  func(d *decoder, v *T, n *node)
}

// object is a mapping with known keys. The tables of objects are the only list of
// keys: the decoder, its suggestions and the test of the JSON Schema read them.
type object[T any] struct {
	what   string // "a run step", for messages
	fields []field[T]
}

func (o object[T]) names() []string {
	var names []string
	for _, f := range o.fields {
		names = append(names, f.name)
	}
	return names
}

// decode fills v from n and reports unknown keys. It returns false when there was one or n is not a
// mapping: what seems to be missing then may be there under a wrong name.
func (o object[T]) decode(d *decoder, n *node, v *T) bool {
	if n.kind != kindMap {
		d.wrong(n, o.what, "a mapping")
		return false
	}
	complete := true
	for i, key := range n.keys {
		found := false
		for _, f := range o.fields {
			if f.name == key.text {
				f.set(d, v, n.values[i])
				found = true
			}
		}
		if !found {
			complete = false
			d.r.at(key, didYouMean(key.text, o.names()), "unknown key %q of %s", key.text, o.what)
		}
	}
	return complete
}

// value returns the value of a key of a mapping, nil when it is absent.
func (n *node) value(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.values[i]
		}
	}
	return nil
}

// decoder turns nodes into the model of model.go, reporting what does not fit.
type decoder struct {
	r         *reporter
	templates []*template // every value with variables, to be checked once the names are known
}

// mistakes is how many were found so far; a part that raised it is not built.
func (d *decoder) mistakes() int { return d.r.count }

func (d *decoder) wrong(n *node, what, want string) {
	d.r.at(n, "", "%s must be %s, this is %s", what, want, n.kind)
}

// text is a string and where it stands. The zero value is an absent key.
type text struct {
	s string
	n *node
}

func (t text) set() bool { return t.n != nil }

// str reads a string.
func (d *decoder) str(n *node, what string) text {
	if n.kind != kindString {
		hint := ""
		if n.kind == kindNumber || n.kind == kindBool {
			hint = "quote it: " + strconv.Quote(n.text)
		}
		d.r.at(n, hint, "%s must be a string, this is %s", what, n.kind)
		return text{}
	}
	return d.noNUL(n, what)
}

// noNUL refuses what no path, argument or variable can hold.
func (d *decoder) noNUL(n *node, what string) text {
	if strings.ContainsRune(n.text, 0) {
		d.r.at(n, "", "%s holds a NUL byte", what)
		return text{}
	}
	return text{n.text, n}
}

// scalar reads a string, or a number or boolean as it is written.
func (d *decoder) scalar(n *node, what string) text {
	switch n.kind {
	case kindString, kindNumber, kindBool:
		return d.noNUL(n, what)
	case kindNull:
		d.r.at(n, `remove the key, or write "" for an empty value`, "%s has no value", what)
	default:
		d.wrong(n, what, "a string")
	}
	return text{}
}

// template reads a string in which ${NAME} is expanded.
func (d *decoder) template(n *node, what string) *template {
	t := d.scalar(n, what)
	if !t.set() {
		return nil
	}
	return d.newTemplate(t)
}

func (d *decoder) newTemplate(t text) *template {
	out := parseTemplate(d.r, t)
	d.templates = append(d.templates, out)
	return out
}

// boolean reads true or false.
func (d *decoder) boolean(n *node, what string) bool {
	if n.kind != kindBool {
		hint := "write true or false"
		d.r.at(n, hint, "%s must be true or false, this is %s", what, n.kind)
		return false
	}
	return n.text == "true" || n.text == "True" || n.text == "TRUE"
}

var decimal = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(0|[1-9][0-9]*)$`) })

// number reads a whole number from lowest to highest.
func (d *decoder) number(n *node, what string, lowest, highest int64) int64 {
	if n.kind != kindNumber && n.kind != kindString || !decimal().MatchString(n.text) {
		if n.kind == kindNumber || n.kind == kindString {
			d.r.at(n, "", "%s must be a whole number, this is %q", what, n.text)
		} else {
			d.wrong(n, what, "a whole number")
		}
		return lowest
	}
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil || v < lowest || v > highest {
		d.r.at(n, "", "%s must be from %d to %d, this is %s", what, lowest, highest, n.text)
		return lowest
	}
	return v
}

// maxID is the highest user or group id of Linux.
const maxID = math.MaxUint32 - 1

var octalText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^0?[0-7]{3,4}$`) })

// mode reads permission bits: "0755" or 0o755. A bare 0755 means other things to other readers of YAML.
func (d *decoder) mode(n *node, what string) *uint32 {
	text := n.text
	switch {
	case n.kind == kindString && octalText().MatchString(text):
	case n.kind == kindNumber && n.octal && octalText().MatchString(text[2:]):
		text = text[2:]
	case n.kind == kindNumber && octalText().MatchString(text):
		d.r.at(n, `quote it: "0`+trimZeros(text)+`"`, "%s %s is ambiguous: an unquoted number may be read as octal or decimal", what, text)
		return nil
	case n.kind == kindString || n.kind == kindNumber:
		d.r.at(n, `three or four octal digits: "0755"`, "%s %q is not a mode", what, text)
		return nil
	default:
		d.wrong(n, what, `octal digits in quotes ("0755")`)
		return nil
	}
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil || v > 0o7777 {
		d.r.at(n, "", "%s %q is above 7777", what, text)
		return nil
	}
	m := uint32(v)
	return &m
}

func trimZeros(s string) string {
	for len(s) > 3 && s[0] == '0' {
		s = s[1:]
	}
	return s
}

// list calls item for each item of a list. An empty value is an empty list.
func (d *decoder) list(n *node, what string, item func(*node)) {
	switch n.kind {
	case kindNull:
	case kindList:
		for _, v := range n.values {
			item(v)
		}
	default:
		hint := ""
		if n.kind == kindString {
			hint = "write a list: [" + strconv.Quote(clean(n.text)) + "]"
		}
		d.r.at(n, hint, "%s must be a list, this is %s", what, n.kind)
	}
}

// pairs calls pair for each key of a mapping whose keys are free. An empty value is an empty mapping.
func (d *decoder) pairs(n *node, what string, pair func(k, v *node)) {
	switch n.kind {
	case kindNull:
	case kindMap:
		for i, k := range n.keys {
			pair(k, n.values[i])
		}
	default:
		d.wrong(n, what, "a mapping")
	}
}

// strings reads a list of scalars.
func (d *decoder) strings(n *node, what string) []text {
	out := []text{}
	d.list(n, what, func(item *node) {
		if t := d.scalar(item, "an item of "+what); t.set() {
			out = append(out, t)
		}
	})
	return out
}

// templates reads a list of strings with variables.
func (d *decoder) templateList(n *node, what string) []*template {
	out := []*template{}
	d.list(n, what, func(item *node) {
		if t := d.template(item, "an item of "+what); t != nil {
			out = append(out, t)
		}
	})
	return out
}

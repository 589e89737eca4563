// Package jsontree reads JSON strictly and edits it without losing anything: a
// tree that keeps the order of members, the spelling of numbers and strings, and
// every field its user does not know.
//
// # Invariants
//
//   - Documents that two readers could understand differently are refused:
//     repeated keys, invalid UTF-8, a byte order mark, text after the document,
//     nesting past [MaxDepth].
//   - Parse of Bytes gives the same tree (FuzzParse holds them to it).
package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrInvalid is the kind of every error for bytes that are not the JSON asked for.
var ErrInvalid = errors.New("invalid JSON")

// Limits of one document, so that a small hostile one cannot cost much memory.
const (
	MaxDepth  = 64      // arrays and objects in one another
	MaxValues = 400_000 // values of any kind
)

// Kind is the kind of a JSON value.
type Kind uint8

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// String names k as error texts do.
func (k Kind) String() string {
	switch k {
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case Array:
		return "an array"
	case Object:
		return "an object"
	default:
		return "null"
	}
}

// Node is one value. Nodes are changed in place; a Node belongs to one tree.
type Node struct {
	kind    Kind
	raw     []byte // scalars: as written
	items   []*Node
	members []member
}

type member struct {
	key   string
	raw   []byte // the key as written, with its quotes
	value *Node
}

// Parse reads one document.
func Parse(raw []byte) (*Node, error) {
	if bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")) {
		return nil, fmt.Errorf("%w: it starts with a byte order mark", ErrInvalid)
	}
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: it is not UTF-8", ErrInvalid)
	}
	// The standard library checks the grammar and the end of the document; what
	// follows may rely on it.
	var whole json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%w at byte %d: %v", ErrInvalid, syntax.Offset, err)
		}
		return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	p := parser{in: raw}
	return p.value(0)
}

// Kind returns what n is; a nil Node is Null.
func (n *Node) Kind() Kind {
	if n == nil {
		return Null
	}
	return n.kind
}

// Get returns the member named key, or nil when n is no object or has none.
func (n *Node) Get(key string) *Node {
	if n.Kind() != Object {
		return nil
	}
	for i := range n.members {
		if n.members[i].key == key {
			return n.members[i].value
		}
	}
	return nil
}

// Has reports whether n is an object with a member named key, be it null.
func (n *Node) Has(key string) bool { return n.Get(key) != nil }

// Keys returns the names of an object's members in their order.
func (n *Node) Keys() []string {
	if n.Kind() != Object {
		return nil
	}
	keys := make([]string, 0, len(n.members))
	for i := range n.members {
		keys = append(keys, n.members[i].key)
	}
	return keys
}

// Items returns an array's values in their order. The slice must not be changed.
func (n *Node) Items() []*Node {
	if n.Kind() != Array {
		return nil
	}
	return n.items
}

// Text returns a string's value; ok is false when n is no string.
func (n *Node) Text() (s string, ok bool) {
	if n.Kind() != String {
		return "", false
	}
	if err := json.Unmarshal(n.raw, &s); err != nil {
		return "", false
	}
	return s, true
}

// Set gives the object n the member key: in its place when there is one, else at the end.
func (n *Node) Set(key string, value *Node) {
	for i := range n.members {
		if n.members[i].key == key {
			n.members[i].value = value
			return
		}
	}
	n.members = append(n.members, member{key: key, raw: quote(key), value: value})
}

// Delete takes the member key away from the object n, if it is there.
func (n *Node) Delete(key string) {
	for i := range n.members {
		if n.members[i].key == key {
			n.members = append(n.members[:i:i], n.members[i+1:]...)
			return
		}
	}
}

// Append adds values to the array n.
func (n *Node) Append(values ...*Node) { n.items = append(n.items, values...) }

// NewObject returns an object without members.
func NewObject() *Node { return &Node{kind: Object} }

// NewArray returns an array of values.
func NewArray(values ...*Node) *Node { return &Node{kind: Array, items: values} }

// NewString returns a string.
func NewString(s string) *Node { return &Node{kind: String, raw: quote(s)} }

// NewStrings returns an array of strings.
func NewStrings(ss []string) *Node {
	n := NewArray()
	for _, s := range ss {
		n.Append(NewString(s))
	}
	return n
}

// NewBool returns a boolean.
func NewBool(b bool) *Node { return &Node{kind: Bool, raw: fmt.Appendf(nil, "%t", b)} }

// Bytes returns the document in its compact form: no white space, and nothing
// escaped that needs not be.
func (n *Node) Bytes() []byte {
	var b bytes.Buffer
	n.write(&b)
	return b.Bytes()
}

// MarshalJSON lets a Node stand inside other values.
func (n *Node) MarshalJSON() ([]byte, error) { return n.Bytes(), nil }

func (n *Node) write(b *bytes.Buffer) {
	switch n.Kind() {
	case Object:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(m.raw)
			b.WriteByte(':')
			m.value.write(b)
		}
		b.WriteByte('}')
	case Array:
		b.WriteByte('[')
		for i, v := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			v.write(b)
		}
		b.WriteByte(']')
	case Null:
		b.WriteString("null")
	default:
		b.Write(n.raw)
	}
}

// Marshal is json.Marshal without the escapes for HTML.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func quote(s string) []byte {
	b, err := Marshal(s)
	if err != nil { // a string always marshals
		panic(fmt.Sprintf("jsontree: quoting %q: %v", s, err))
	}
	return b
}

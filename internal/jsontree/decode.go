package jsontree

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Decode parses raw and decodes it into v, a pointer to a struct. On top of what
// [Parse] refuses, it refuses members that differ from one of the struct's only
// in case: encoding/json would take them, other readers do not.
func Decode(raw []byte, v any) (*Node, error) {
	n, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	return n, n.Decode(v)
}

// Decode decodes n into v with the rules of the function Decode.
func (n *Node) Decode(v any) error {
	t := reflect.TypeOf(v)
	if n.Kind() == Null {
		return fmt.Errorf("%w: it is null", ErrInvalid)
	}
	if err := checkNames(n, t, ""); err != nil {
		return err
	}
	if err := json.Unmarshal(n.Bytes(), v); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkNames walks n along the type t. at is where n stands, for errors.
func checkNames(n *Node, t reflect.Type, at string) error {
	for t.Kind() == reflect.Pointer {
		if t.Implements(unmarshaler) {
			return nil
		}
		t = t.Elem()
	}
	if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	switch {
	case t.Kind() == reflect.Struct && n.Kind() == Object:
		fields := fieldsOf(t)
		for _, m := range n.members {
			if f, ok := fields[m.key]; ok {
				if err := checkNames(m.value, f, join(at, m.key)); err != nil {
					return err
				}
				continue
			}
			for name := range fields {
				if strings.EqualFold(name, m.key) {
					return fmt.Errorf("%w: %q is written %q, which readers understand differently", ErrInvalid, join(at, name), m.key)
				}
			}
		}
	case t.Kind() == reflect.Map && n.Kind() == Object:
		for _, m := range n.members {
			if err := checkNames(m.value, t.Elem(), join(at, m.key)); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Slice && n.Kind() == Array:
		for i, v := range n.items {
			if err := checkNames(v, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// fieldsOf returns the JSON names of a struct's fields, embedded ones included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}

package jsontree

import (
	"encoding/json"
	"fmt"
)

// smallObject is how many members are compared one by one; larger objects get a set.
const smallObject = 16

// parser walks a document whose grammar has been checked.
type parser struct {
	in     []byte
	pos    int
	values int
}

func (p *parser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\t', '\r', '\n':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) value(depth int) (*Node, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w at byte %d: nested deeper than %d", ErrInvalid, p.pos, MaxDepth)
	}
	if p.values++; p.values > MaxValues {
		return nil, fmt.Errorf("%w at byte %d: more than %d values", ErrInvalid, p.pos, MaxValues)
	}
	p.space()
	switch c := p.in[p.pos]; c {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		return &Node{kind: String, raw: p.str()}, nil
	case 't', 'f', 'n':
		word := p.word()
		if c == 'n' {
			return &Node{kind: Null}, nil
		}
		return &Node{kind: Bool, raw: word}, nil
	default:
		return &Node{kind: Number, raw: p.word()}, nil
	}
}

func (p *parser) object(depth int) (*Node, error) {
	n := NewObject()
	p.pos++ // {
	var seen map[string]bool
	for {
		p.space()
		switch p.in[p.pos] {
		case '}':
			p.pos++
			return n, nil
		case ',':
			p.pos++
			p.space()
		}
		at := p.pos
		raw := p.str()
		key, err := unquote(raw)
		if err != nil {
			return nil, fmt.Errorf("%w at byte %d: %v", ErrInvalid, at, err)
		}
		if seen == nil && len(n.members) == smallObject {
			seen = make(map[string]bool, 2*smallObject)
			for _, m := range n.members {
				seen[m.key] = true
			}
		}
		if seen[key] || seen == nil && n.Has(key) {
			return nil, fmt.Errorf("%w at byte %d: the key %q stands twice in one object", ErrInvalid, at, key)
		}
		if seen != nil {
			seen[key] = true
		}
		p.space()
		p.pos++ // :
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.members = append(n.members, member{key: key, raw: raw, value: value})
	}
}

func (p *parser) array(depth int) (*Node, error) {
	n := NewArray()
	p.pos++ // [
	for {
		p.space()
		switch p.in[p.pos] {
		case ']':
			p.pos++
			return n, nil
		case ',':
			p.pos++
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, value)
	}
}

// str returns the string literal at pos, quotes included.
func (p *parser) str() []byte {
	start := p.pos
	p.pos++
	for p.in[p.pos] != '"' {
		if p.in[p.pos] == '\\' {
			p.pos++
		}
		p.pos++
	}
	p.pos++
	return p.in[start:p.pos:p.pos]
}

// word returns the number or the literal name at pos.
func (p *parser) word() []byte {
	start := p.pos
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return p.in[start:p.pos:p.pos]
		}
		p.pos++
	}
	return p.in[start:p.pos:p.pos]
}

func unquote(raw []byte) (string, error) {
	for _, c := range raw[1 : len(raw)-1] {
		if c == '\\' {
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err
		}
	}
	return string(raw[1 : len(raw)-1]), nil
}

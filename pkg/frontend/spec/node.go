package spec

import (
	"encoding/base64"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// kind is what a node of the document is.
type kind string

const (
	kindNull   kind = "empty"
	kindString kind = "a string"
	kindNumber kind = "a number"
	kindBool   kind = "a boolean"
	kindBinary kind = "binary data"
	kindMap    kind = "a mapping"
	kindList   kind = "a list"
	kindBad    kind = "broken" // reported; nothing more is said about it
)

// node is one value of the document with its place. Aliases share the node of their anchor.
type node struct {
	kind      kind
	text      string // scalars: the value; numbers and booleans as they are written
	octal     bool   // a number written 0o755
	line, col int    // from 1; col in runes
	keys      []*node
	values    []*node // of a mapping, as keys; or the items of a list
	weight    int     // nodes below and including this one, aliases expanded
}

// parse makes the tree of a document; nil when it is not one. Every mistake is reported with its place.
func parse(r *reporter, text []byte) (root *node) {
	if !checkText(r, text) {
		return nil
	}
	defer func() { // the parser of the library is fed with whatever users write
		if v := recover(); v != nil {
			r.add(1, 1, nil, "", "the YAML parser cannot read this document")
			root = nil
		}
	}()
	tokens, ok := tokenize(r, text)
	if !ok || !checkTokens(r, tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		reportSyntax(r, err)
		return nil
	}
	c := converter{r: r, anchors: map[string]*node{}}
	var body ast.Node
	for _, d := range file.Docs {
		switch d.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.NullNode:
			continue
		case *ast.DirectiveNode:
			tk := d.Body.GetToken()
			r.add(tk.Position.Line, tk.Position.Column, nil, "remove the line", "YAML directives are not supported")
			return nil
		}
		if body != nil {
			line, col := start(d.Body)
			r.add(line, col, nil, "one spec is one document; remove what follows ---", "a second YAML document begins")
			return nil
		}
		body = d.Body
	}
	if body == nil {
		r.add(1, 1, nil, `begin with "version: 1"`, "the spec is empty")
		return nil
	}
	root = c.convert(body, 0)
	if c.full {
		return nil
	}
	return root
}

// converter makes nodes of the library's tree.
type converter struct {
	r       *reporter
	anchors map[string]*node
	full    bool // the limit of nodes was reported
}

// start is the place where a person sees a node begin.
func start(n ast.Node) (line, col int) {
	switch v := n.(type) {
	case *ast.MappingNode:
		if len(v.Values) > 0 && !v.IsFlowStyle {
			return start(v.Values[0])
		}
	case *ast.MappingValueNode:
		return start(v.Key)
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line, tk.Position.Column
	}
	return 1, 1
}

// convert returns the node of n; never nil. Mistakes are reported and become empty nodes.
func (c *converter) convert(n ast.Node, depth int) *node {
	if n == nil {
		return &node{kind: kindNull, line: 1, col: 1, weight: 1}
	}
	line, col := start(n)
	out := &node{kind: kindNull, line: line, col: col, weight: 1}
	if depth > maxDepth {
		c.r.at(out, "", "nested too deeply: more than %d levels", maxDepth)
		return out
	}
	switch v := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = kindString, v.Value
	case *ast.LiteralNode:
		out.kind, out.text = kindString, v.Value.Value
	case *ast.IntegerNode:
		out.kind, out.text = kindNumber, v.Token.Value
		out.octal = strings.HasPrefix(v.Token.Value, "0o")
	case *ast.FloatNode:
		out.kind, out.text = kindNumber, v.Token.Value
	case *ast.InfinityNode:
		out.kind, out.text = kindNumber, v.Token.Value
	case *ast.NanNode:
		out.kind, out.text = kindNumber, v.Token.Value
	case *ast.BoolNode:
		out.kind, out.text = kindBool, v.Token.Value
	case *ast.TagNode:
		return c.tag(v, depth)
	case *ast.AnchorNode:
		out = c.convert(v.Value, depth+1)
		c.anchors[v.Name.GetToken().Value] = out
		return out
	case *ast.AliasNode:
		name := v.Value.GetToken().Value
		target, ok := c.anchors[name]
		if !ok {
			c.r.at(out, "an anchor (&"+name+") stands before its aliases", "unknown alias *%s", name)
			out.kind = kindBad
			return out
		}
		c.count(out, target.weight)
		return target
	case *ast.SequenceNode:
		out.kind = kindList
		for _, item := range v.Values {
			child := c.convert(item, depth+1)
			out.values = append(out.values, child)
			c.count(out, child.weight)
		}
	case *ast.MappingNode:
		out.kind = kindMap
		c.mapping(out, v.Values, depth)
	case *ast.MappingValueNode:
		out.kind = kindMap
		c.mapping(out, []*ast.MappingValueNode{v}, depth)
	default:
		c.r.at(out, "", "YAML: %s is not supported here", strings.ToLower(n.Type().String()))
		out.kind = kindBad
	}
	return out
}

// count adds to a node's weight and reports a document that aliases blow up.
func (c *converter) count(n *node, weight int) {
	n.weight += weight
	if n.weight > maxNodes && !c.full {
		c.full = true
		c.r.at(n, "", "the document has more than %d values with its aliases expanded", maxNodes)
	}
	if n.weight > maxNodes { // what is too large is not decoded, and does not overflow
		n.kind, n.keys, n.values, n.weight = kindNull, nil, nil, 1
	}
}

func (c *converter) tag(v *ast.TagNode, depth int) *node {
	out := c.convert(v.Value, depth+1)
	line, col := start(v)
	here := &node{line: line, col: col}
	switch v.GetToken().Value {
	case "!!str":
		if out.kind == kindNumber || out.kind == kindBool || out.kind == kindString {
			cp := *out
			cp.kind = kindString
			return &cp
		}
		c.r.at(here, "", "!!str before %s", out.kind)
	case "!!binary":
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(out.text), ""))
		if out.kind != kindString || err != nil {
			c.r.at(here, "", "!!binary before what is not base64")
			here.kind = kindBad
			return here
		}
		cp := *out
		cp.kind, cp.text = kindBinary, string(b)
		return &cp
	case "!!map", "!!seq", "!!int", "!!bool", "!!float", "!!null": // what it is anyway
	default:
		c.r.at(here, "", "unknown YAML tag %q", v.GetToken().Value)
	}
	return out
}

// mapping converts the pairs of a mapping: keys are scalars, each once; << merges.
func (c *converter) mapping(out *node, pairs []*ast.MappingValueNode, depth int) {
	seen := map[string]*node{}
	var merges []*node
	for _, p := range pairs {
		if p.Key.IsMergeKey() {
			merges = append(merges, c.convert(p.Value, depth+1))
			continue
		}
		var key *node
		if mk, ok := p.Key.(*ast.MappingKeyNode); ok {
			key = c.convert(mk.Value, depth+1)
		} else {
			key = c.convert(p.Key, depth+1)
		}
		value := c.convert(p.Value, depth+1)
		switch key.kind {
		case kindString, kindNumber, kindBool:
		default:
			c.r.at(key, "", "a key is %s", key.kind)
			continue
		}
		if value.kind == kindNull && value.line < key.line {
			value.line, value.col = key.line, key.col
		}
		if strings.ContainsRune(key.text, 0) {
			c.r.at(key, "", "a key holds a NUL byte")
			continue
		}
		if first := seen[key.text]; first != nil {
			c.r.at(key, "", "key %q is here twice; the first is in line %d", key.text, first.line)
			continue
		}
		seen[key.text] = key
		out.keys, out.values = append(out.keys, key), append(out.values, value)
		c.count(out, value.weight+1)
	}
	for _, m := range merges {
		c.merge(out, m, seen)
	}
}

// merge adds the pairs of m, a mapping or a list of them, whose keys are not there yet.
func (c *converter) merge(out, m *node, seen map[string]*node) {
	switch m.kind {
	case kindList:
		for _, item := range m.values {
			if item.kind != kindMap {
				c.r.at(item, "", "<< merges mappings, this is %s", item.kind)
				continue
			}
			c.merge(out, item, seen)
		}
	case kindMap:
		for i, key := range m.keys {
			if seen[key.text] != nil {
				continue
			}
			seen[key.text] = key
			out.keys, out.values = append(out.keys, key), append(out.values, m.values[i])
			c.count(out, m.values[i].weight+1)
		}
	default:
		c.r.at(m, "", "<< merges mappings, this is %s", m.kind)
	}
}

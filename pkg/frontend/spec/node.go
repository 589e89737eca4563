package spec

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
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

// Limits of a document, so that no text makes the checker slow or large.
const (
	maxDepth  = 64       // nesting
	maxTokens = 100000   // the library's parser takes time quadratic in the entries of a collection
	maxNodes  = 200000   // with aliases expanded
	maxFlow   = 64       // brackets and braces open at once
	maxBlank  = 10000000 // sum of the squares of the lengths of runs of blank lines: what the library's scanner takes for them
)

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

// checkText refuses what is not UTF-8 text.
func checkText(r *reporter, text []byte) bool {
	if utf8.Valid(text) && !bytes.ContainsRune(text, 0) {
		return checkBlank(r)
	}
	line, col := 1, 1
	for len(text) > 0 {
		c, n := utf8.DecodeRune(text)
		if c == utf8.RuneError && n == 1 {
			r.add(line, col, nil, "save the file as UTF-8", "byte 0x%02x is not UTF-8", text[0])
			return false
		}
		if c == 0 {
			r.add(line, col, nil, "", "the file holds a NUL byte")
			return false
		}
		col++
		if c == '\n' {
			line, col = line+1, 1
		}
		text = text[n:]
	}
	return false
}

// checkBlank refuses long runs of blank lines.
func checkBlank(r *reporter) bool {
	run, sum := 0, 0
	for i, line := range r.lines {
		if strings.TrimSpace(line) != "" {
			run = 0
			continue
		}
		if run++; run > 10 {
			sum += 2*run - 1
		}
		if sum > maxBlank {
			r.add(i+1, 1, nil, "", "too many blank lines in a row")
			return false
		}
	}
	return true
}

// tokenize splits the text into at most maxTokens tokens. The library takes some 250 bytes for each, so
// a growing part of a large text is tried first: one that is made of tokens ends before it takes much.
func tokenize(r *reporter, text []byte) (token.Tokens, bool) {
	for n := 256 << 10; ; n += n / 2 {
		tokens := lexer.Tokenize(string(text[:min(n, len(text))]))
		if len(tokens) > maxTokens {
			tk := tokens[maxTokens]
			r.add(tk.Position.Line, tk.Position.Column, nil, "use directories and patterns as sources, and files for contents", "the spec is too large: more than %d words and signs", maxTokens)
			return nil, false
		}
		if n >= len(text) {
			return tokens, true
		}
	}
}

// checkTokens bounds nesting before the parser, which recurses, sees it.
func checkTokens(r *reporter, tokens token.Tokens) bool {
	flow, sameLine, last := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != last {
			sameLine, last = 0, tk.Position.Line
		}
		deep := false
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
			deep = flow > maxFlow
		case token.SequenceEndType, token.MappingEndType:
			flow = max(flow-1, 0)
		case token.SequenceEntryType, token.MappingKeyType:
			deep = flow == 0 && tk.Position.Column > 4*maxDepth
			sameLine++
		case token.MappingValueType:
			deep = flow == 0 && tk.Prev != nil && tk.Prev.Position.Line == tk.Position.Line && tk.Prev.Position.Column > 4*maxDepth
			sameLine++
		case token.AnchorType, token.TagType, token.AliasType:
			sameLine++
		}
		if flow == 0 && sameLine > maxDepth {
			deep = true
		}
		if deep {
			r.add(tk.Position.Line, tk.Position.Column, nil, "", "nested too deeply: more than %d levels", maxDepth)
			return false
		}
	}
	return true
}

// reportSyntax translates an error of the YAML parser.
func reportSyntax(r *reporter, err error) {
	line, col, msg := 1, 1, err.Error()
	if e, ok := err.(yaml.Error); ok { //nolint:errorlint // the parser returns it bare
		msg = e.GetMessage()
		if tk := e.GetToken(); tk != nil && tk.Position != nil {
			line, col = tk.Position.Line, tk.Position.Column
		}
	}
	hint := ""
	text := r.line(line)
	switch {
	case strings.Contains(msg, "'\t'") || strings.HasPrefix(strings.TrimLeft(text, " "), "\t"):
		msg, hint = "a tab in the indentation", "YAML is indented with spaces"
	case strings.Contains(text, "${") && strings.ContainsAny(text, "{["):
		hint = `inside { } and [ ] quote values that hold ${NAME}`
	}
	r.add(line, col, nil, hint, "YAML: %s", msg)
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

package spec

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// Limits of a document, so that no text makes the checker slow or large.
const (
	maxDepth  = 64       // nesting
	maxTokens = 100000   // the library's parser takes time quadratic in the entries of a collection
	maxNodes  = 200000   // with aliases expanded
	maxFlow   = 64       // brackets and braces open at once
	maxBlank  = 10000000 // sum of the squares of the lengths of runs of blank lines: what the library's scanner takes for them
)

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

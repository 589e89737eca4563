package registry

import (
	"net/http"
	"strings"
)

// challenge is one of the ways a registry offers to prove who asks (RFC 9110,
// section 11.3).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenges reads all WWW-Authenticate headers; what makes no sense is left out.
func parseChallenges(h http.Header) []challenge {
	var out []challenge
	for _, line := range h.Values("Www-Authenticate") {
		p := challengeParser{rest: line}
		out = append(out, p.all()...)
	}
	return out
}

// pick returns the challenge of a scheme, if there is one.
func pick(cs []challenge, scheme string) (challenge, bool) {
	for _, c := range cs {
		if c.scheme == scheme {
			return c, true
		}
	}
	return challenge{}, false
}

type challengeParser struct{ rest string }

// all reads scheme [param *("," param)] *("," scheme ...). A word that no '='
// follows begins a challenge.
func (p *challengeParser) all() []challenge {
	var out []challenge
	for {
		p.skip(" \t,")
		word := p.token()
		if word == "" {
			return out
		}
		p.skip(" \t")
		if len(out) == 0 || !strings.HasPrefix(p.rest, "=") {
			out = append(out, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
			continue
		}
		p.rest = p.rest[1:]
		p.skip(" \t")
		value, ok := p.value()
		if !ok {
			return out
		}
		key := strings.ToLower(word)
		if params := out[len(out)-1].params; params[key] == "" {
			params[key] = value
		}
	}
}

func (p *challengeParser) skip(chars string) { p.rest = strings.TrimLeft(p.rest, chars) }

func (p *challengeParser) token() string {
	end := strings.IndexAny(p.rest, " \t,=\"")
	if end < 0 {
		end = len(p.rest)
	}
	t := p.rest[:end]
	p.rest = p.rest[end:]
	return t
}

func (p *challengeParser) value() (string, bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		return p.token(), true
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case '\\':
			if i++; i < len(p.rest) {
				b.WriteByte(p.rest[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return "", false
}

package fileop

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMode reports a symbolic mode that is none.
var ErrMode = errors.New("invalid mode")

// The bits of a mode.
const (
	setUID, setGID, sticky = 0o4000, 0o2000, 0o1000
	execAny                = 0o111
)

// clause is one change of a symbolic mode: who op perm.
type clause struct {
	who      int64 // bits that may change
	op       byte  // + - =
	bits     int64 // what is added, removed or set, within who
	from     byte  // u, g or o: the bits of this class instead
	execOnly bool  // X: execute only for directories and what anybody may execute
}

// parseMode reads a mode as chmod(1) takes it: octal, or clauses like "u+x,go=rX".
func parseMode(s string) ([]clause, error) {
	bad := func() ([]clause, error) { return nil, fmt.Errorf("%w %q", ErrMode, s) }
	if s == "" {
		return bad()
	}
	if s[0] >= '0' && s[0] <= '9' {
		n, err := strconv.ParseInt(s, 8, 64)
		if err != nil || n > 0o7777 {
			return bad()
		}
		return []clause{{who: 0o7777, op: '=', bits: n}}, nil
	}
	var out []clause
	for part := range strings.SplitSeq(s, ",") {
		who, named, i := int64(0), false, 0
	classes:
		for ; i < len(part); i++ {
			switch part[i] {
			case 'u':
				who |= 0o700 | setUID
			case 'g':
				who |= 0o070 | setGID
			case 'o':
				who |= 0o007
			case 'a':
				who |= 0o777 | setUID | setGID | sticky
			default:
				break classes
			}
			named = true
		}
		if !named {
			who = 0o7777
		}
		if i == len(part) {
			return bad()
		}
		for i < len(part) {
			c := clause{who: who, op: part[i]}
			if c.op != '+' && c.op != '-' && c.op != '=' {
				return bad()
			}
			i++
			start := len(out)
		perms:
			for ; i < len(part); i++ {
				switch part[i] {
				case 'r':
					c.bits |= 0o444
				case 'w':
					c.bits |= 0o222
				case 'x':
					c.bits |= execAny
				case 's':
					c.bits |= setUID | setGID
				case 't':
					c.bits |= sticky
					if who&0o770 != 0 {
						c.who |= sticky
					}
				case 'X':
					x := clause{who: who, op: c.op, bits: execAny, execOnly: true}
					if c.op == '=' {
						x.op = '+'
					}
					out = append(out, x)
				case 'u', 'g', 'o':
					x := clause{who: who, op: c.op, from: part[i]}
					if c.op == '=' {
						x.op = '+'
					}
					out = append(out, x)
				default:
					break perms
				}
			}
			// What is set comes first, so that what is added to it stays.
			out = append(out[:start], append([]clause{c}, out[start:]...)...)
		}
	}
	return out, nil
}

// applyMode returns mode after the clauses.
func applyMode(clauses []clause, mode int64, dir bool) int64 {
	old := mode
	for _, c := range clauses {
		bits := c.bits
		switch c.from {
		case 'u':
			bits = spread(old >> 6)
		case 'g':
			bits = spread(old >> 3)
		case 'o':
			bits = spread(old)
		}
		if c.execOnly && !dir && old&execAny == 0 {
			continue
		}
		bits &= c.who
		switch c.op {
		case '+':
			mode |= bits
		case '-':
			mode &^= bits
		case '=':
			mode = mode&^c.who | bits
		}
	}
	return mode
}

// spread gives all three classes the permissions of one.
func spread(p int64) int64 {
	p &= 7
	return p<<6 | p<<3 | p
}

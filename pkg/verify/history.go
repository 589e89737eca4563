package verify

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxStep is how much of a step a finding shows, in bytes.
const maxStep = 120

// steps names what made each of n layers; nil when the history does not fit to them.
func steps(history []ocispec.History, n int) []string {
	var out []string
	for _, h := range history {
		if !h.EmptyLayer {
			out = append(out, cleanStep(h.CreatedBy))
		}
	}
	if len(out) != n {
		return nil
	}
	return out
}

// cleanStep makes what the author wrote of created_by.
func cleanStep(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	s = strings.TrimSuffix(s, " # buildkit")
	if rest, ok := strings.CutPrefix(s, "RUN "); ok { // RUN |2 A=1 B=2 /bin/sh -c make
		if strings.HasPrefix(rest, "|") {
			if i := strings.Index(rest, "/bin/sh -c "); i >= 0 {
				rest = rest[i:]
			}
		}
		s = "RUN " + strings.TrimPrefix(rest, "/bin/sh -c ")
	} else if rest, ok := strings.CutPrefix(s, "/bin/sh -c #(nop) "); ok {
		s = strings.TrimSpace(rest)
	} else if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		s = "RUN " + rest
	}
	if len(s) > maxStep {
		cut := maxStep - 3
		for cut > 0 && s[cut]&0xc0 == 0x80 { // not inside of a character
			cut--
		}
		s = s[:cut] + "..."
	}
	return s
}

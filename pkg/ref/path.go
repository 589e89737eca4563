package ref

import (
	"errors"
	"regexp"
	"strings"
	"sync"
)

// reDigestLike tells a digest after '@' from a path that holds an '@'.
var reDigestLike = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:sha(?:256|384|512):.*|[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,})$`)
})

// parsePath reads PATH[:TAG][@DIGEST] of a layout or archive. The path may hold
// colons: the tag is what follows the last one, when it is a tag. "PATH:" is a
// path whose last colon is not the tag's.
func parsePath(kind Kind, s string) (Ref, error) {
	r := Ref{Kind: kind}
	if at := strings.LastIndexByte(s, '@'); at >= 0 && reDigestLike().MatchString(s[at+1:]) {
		if kind == DockerArchive {
			return Ref{}, errors.New("a docker archive names images by tag, not by digest")
		}
		d, err := parseDigest(s[at+1:])
		if err != nil {
			return Ref{}, err
		}
		r.Digest, s = d, s[:at]
	}
	r.Path = s
	if colon := strings.LastIndexByte(s, ':'); colon >= 0 {
		if tag := s[colon+1:]; tag == "" || isTag(tag) {
			r.Path, r.Tag = s[:colon], tag
		}
	}
	switch {
	case r.Path == "":
		return Ref{}, errors.New("the path is missing")
	case strings.ContainsRune(r.Path, 0):
		return Ref{}, errors.New("a path cannot hold a NUL")
	}
	return r, nil
}

// pathString is the inverse of parsePath.
func (r Ref) pathString() string {
	s := r.Path
	switch {
	case r.Tag != "":
		s += ":" + r.Tag
	case r.pathNeedsEnd():
		s += ":"
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// pathNeedsEnd reports whether the path alone would be read as something else.
func (r Ref) pathNeedsEnd() bool {
	got, err := parsePath(r.Kind, r.Path)
	return err != nil || got.Path != r.Path
}

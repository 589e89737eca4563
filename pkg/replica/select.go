package replica

import (
	"regexp"
	"slices"

	"github.com/Masterminds/semver/v3"
	"github.com/opencontainers/go-digest"
)

// pick chooses among the tags of a repository. missing are listed names that are not there; digests always are.
func (s Select) pick(tags []string) (taken, missing []string) {
	for _, n := range s.Names {
		switch {
		case digest.Digest(n).Validate() == nil, slices.Contains(tags, n):
			taken = append(taken, n)
		default:
			missing = append(missing, n)
		}
	}
	type versioned struct {
		tag string
		v   *semver.Version
	}
	var versions []versioned
	for _, tag := range tags {
		if slices.Contains(taken, tag) || s.Exclude != nil && matches(s.Exclude, tag) {
			continue
		}
		v, err := semver.NewVersion(tag)
		isVersion := err == nil
		switch {
		case s.all(), s.Match != nil && matches(s.Match, tag):
		case s.Versions != nil && isVersion && s.Versions.Check(v):
		default:
			continue
		}
		if isVersion && s.Newest > 0 {
			versions = append(versions, versioned{tag, v})
			continue
		}
		taken = append(taken, tag)
	}
	slices.SortStableFunc(versions, func(a, b versioned) int { return b.v.Compare(a.v) })
	for i, v := range versions {
		if i < s.Newest {
			taken = append(taken, v.tag)
		}
	}
	slices.Sort(taken)
	return slices.Compact(taken), missing
}

// matches is how skopeo matches: anywhere in the tag, unless the pattern is anchored.
func matches(re *regexp.Regexp, tag string) bool { return re.MatchString(tag) }

package replica

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/internal/yamlfile"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

const (
	// maxFile is how many bytes a file may have.
	maxFile = 4 << 20
	// maxJobs is how many repositories it may name.
	maxJobs = 20_000
	// maxPattern is how many bytes a pattern may have.
	maxPattern = 4096
)

// ParseOptions is what a file does not say.
type ParseOptions struct {
	To     *transfer.Place // where all goes; nil: the file says it
	Suffix string          // of tags at the destination
	// Secret returns what a file says by the name of a variable or of a file; nil: neither is allowed.
	Secret func(kind SecretKind, name string) (string, error)
}

// SecretKind says where a password is.
type SecretKind string

// The kinds of secrets.
const (
	SecretEnv  SecretKind = "password-env"
	SecretFile SecretKind = "password-file"
)

// Parse reads a sync file: skopeo's, or our own, which has a version. Every error is of kind ErrInvalid.
func Parse(raw []byte, o ParseOptions) (Plan, error) {
	p, err := parse(raw, o)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return p, nil
}

func parse(raw []byte, o ParseOptions) (Plan, error) {
	if len(raw) > maxFile {
		return Plan{}, fmt.Errorf("%d bytes are more than the limit of %d", len(raw), maxFile)
	}
	var top struct {
		Version any `yaml:"version"`
	}
	if err := yamlfile.Decode(raw, &top, yamlfile.Options{}); err != nil && !errors.Is(err, io.EOF) {
		return Plan{}, err
	}
	if top.Version != nil {
		return parseOwn(raw, o)
	}
	return parseSkopeo(raw, o)
}

// decode reads YAML strictly. Errors give the line and the place of a mistake, and not what stands there: it may be a password.
func decode(raw []byte, v any) error {
	err := yamlfile.Decode(raw, v, yamlfile.Options{Strict: true})
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	return err
}

// place is where all goes.
func place(text string, o ParseOptions) (transfer.Place, error) {
	switch {
	case o.To != nil:
		return *o.To, nil
	case text == "":
		return transfer.Place{}, errors.New("nothing says where to: give a destination")
	}
	return transfer.ParsePlace(text)
}

// repository reads HOST/REPO, or a short name by docker's rules.
func repository(text string) (ref.Ref, error) {
	r, err := ref.Parse(text)
	switch {
	case err != nil:
		return r, err
	case r.Kind != ref.Registry:
		return r, fmt.Errorf("%q is no repository of a registry", text)
	case r.Digest != "", r.Tag != "latest", strings.HasSuffix(text, ":latest"):
		return r, fmt.Errorf("%q has a tag or digest: those stand under tags", text)
	}
	return r.WithTag(""), nil
}

func pattern(key, text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none
	}
	if len(text) > maxPattern {
		return nil, fmt.Errorf("%s: a pattern of %d bytes is longer than the limit of %d", key, len(text), maxPattern)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, text, err)
	}
	return re, nil
}

func constraints(text string) (*semver.Constraints, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none
	}
	if len(text) > maxPattern {
		return nil, fmt.Errorf("semver: %d bytes are more than the limit of %d", len(text), maxPattern)
	}
	c, err := semver.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf("semver %q: %w", text, err)
	}
	return c, nil
}

// check looks at a plan as a whole.
func (p *Plan) check() error {
	if len(p.Jobs) == 0 {
		return errors.New("it names no image")
	}
	if len(p.Jobs) > maxJobs {
		return fmt.Errorf("%d repositories are more than the limit of %d", len(p.Jobs), maxJobs)
	}
	from := map[ref.Ref]ref.Ref{}
	for _, j := range p.Jobs {
		for _, n := range j.Select.Names {
			if digest.Digest(n).Validate() != nil && ref.CheckTag(n) != nil {
				return fmt.Errorf("%s: %q is neither a tag nor a digest", j.From, n)
			}
		}
		if j.Suffix != "" {
			if err := ref.CheckTag("x" + j.Suffix); err != nil {
				return fmt.Errorf("the suffix %q: %w", j.Suffix, err)
			}
		}
		if other, ok := from[j.To]; ok && other != j.From {
			return fmt.Errorf("%s and %s both go to %s: with their hosts and whole names they do not (--scoped)", other.Repository(), j.From.Repository(), j.To)
		}
		from[j.To] = j.From
	}
	return nil
}

// Hosts are the registries of the file, sorted.
func (p *Plan) Hosts() []string { return slices.Sorted(maps.Keys(p.Registries)) }

// size reads "20MB", "512KiB", "1000000".
func size(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTiBkb")
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	units := map[string]float64{
		"": 1, "B": 1, "k": 1e3, "K": 1e3, "kB": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
	}
	unit, ok := units[text[len(digits):]]
	if err != nil || !ok || n <= 0 || n*unit > math.MaxInt64/2 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no size: want 500KB, 20MB, 1GiB", text)
	}
	return max(int64(n*unit), 1), nil
}

func platforms(words []string) ([]platform.Platform, error) {
	if len(words) == 0 || len(words) == 1 && words[0] == "all" {
		return nil, nil
	}
	return platform.ParseList(words...)
}

package ref

import (
	// The hashes that a digest in a reference may name; go-digest knows only
	// what is linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// The grammar of names, from the distribution specification ("Pulling
// manifests") and, for hosts, RFC 1123 and RFC 3986.
var (
	reRepo = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	})
	reDomain = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$`)
	})
	reID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-f0-9]{64}$`) })
)

// maxName is the most characters of HOST/REPO together: registries cap it there.
const maxName = 255

const (
	dockerHub   = "docker.io"
	latest      = "latest"
	hubOfficial = "library/"
)

// parseRegistry reads [HOST/]REPO[:TAG][@DIGEST].
func parseRegistry(s string) (Ref, error) {
	name, tag, dgst, err := splitName(s)
	if err != nil {
		return Ref{}, err
	}
	host, repo, err := splitHost(name)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Kind: Registry, Host: host, Repo: repo, Tag: tag, Digest: dgst}, nil
}

// parseStore reads NAME[:TAG][@DIGEST] or @DIGEST. A name in the store is a
// registry reference in its short form, so that what is tagged for a registry
// is found under either spelling.
func parseStore(s string) (Ref, error) {
	if d, ok := strings.CutPrefix(s, "@"); ok {
		dgst, err := parseDigest(d)
		return Ref{Kind: Store, Digest: dgst}, err
	}
	r, err := parseRegistry(s)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Kind: Store, Name: r.shortName(), Tag: r.Tag, Digest: r.Digest}, nil
}

// splitName cuts tag and digest off a name; one without both gets the tag "latest".
func splitName(s string) (name, tag string, dgst digest.Digest, err error) {
	name, d, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if dgst, err = parseDigest(d); err != nil {
			if strings.Contains(d, "/") {
				err = errors.New("a reference holds no user or password: they belong in ~/.docker/config.json")
			}
			return "", "", "", err
		}
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
		if err = checkTag(tag); err != nil {
			return "", "", "", err
		}
	}
	if tag == "" && dgst == "" {
		tag = latest
	}
	return name, tag, dgst, nil
}

// splitHost tells host and repository apart by docker's rule: the first part is
// a host if it holds a dot or a colon, or is "localhost".
func splitHost(name string) (host, repo string, err error) {
	first, rest, more := strings.Cut(name, "/")
	if !more || (first != "localhost" && !strings.ContainsAny(first, ".:[")) {
		host, repo = dockerHub, name
	} else {
		host, repo = strings.ToLower(first), rest
		if err = checkHost(host); err != nil {
			return "", "", err
		}
	}
	if host == "index."+dockerHub {
		host = dockerHub
	}
	if err = checkRepo(repo); err != nil {
		return "", "", err
	}
	if host == dockerHub {
		if reID().MatchString(repo) {
			return "", "", errors.New("64 hexadecimal digits are an ID, not a repository")
		}
		if !strings.Contains(repo, "/") {
			repo = hubOfficial + repo
		}
	}
	if len(host)+1+len(repo) > maxName {
		return "", "", fmt.Errorf("host and repository are %d characters: at most %d are allowed", len(host)+1+len(repo), maxName)
	}
	return host, repo, nil
}

func checkHost(host string) error {
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		name, port = host[:colon], host[colon+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return fmt.Errorf("host %q: %q is not a port (1 to 65535)", host, port)
		}
	}
	if !reDomain().MatchString(name) && !isIPv6(name) {
		return fmt.Errorf("%q is not a host: letters, digits, '-' and '.' only (other scripts as xn--...)", name)
	}
	return nil
}

func checkRepo(repo string) error {
	switch {
	case repo == "":
		return errors.New("the repository is missing")
	case len(repo) > maxName:
		return fmt.Errorf("repository is %d characters: at most %d are allowed", len(repo), maxName)
	case reRepo().MatchString(repo):
		return nil
	case reRepo().MatchString(strings.ToLower(repo)):
		return fmt.Errorf("repository %q must be lower case", repo)
	}
	return fmt.Errorf("repository %q: parts of a-z and 0-9, joined by '.', '_', '__', '-' or '/', are allowed", repo)
}

// isTag is [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}: lists of tags are long, so it is
// no regular expression.
func isTag(tag string) bool {
	for i := range len(tag) {
		switch c := tag[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '-'):
		default:
			return false
		}
	}
	return tag != "" && len(tag) <= 128
}

func checkTag(tag string) error {
	switch {
	case isTag(tag):
		return nil
	case tag == "":
		return errors.New("the tag after the colon is missing")
	case len(tag) > 128:
		return fmt.Errorf("tag is %d characters: at most 128 are allowed", len(tag))
	}
	return fmt.Errorf("tag %q: letters, digits, '_', '.' and '-' are allowed, and not '.' or '-' first", tag)
}

func parseDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	switch err := d.Validate(); {
	case err == nil:
		return d, nil
	case errors.Is(err, digest.ErrDigestUnsupported):
		return "", fmt.Errorf("digest %q: unsupported algorithm (sha256 and sha512 are)", s)
	}
	return "", fmt.Errorf("digest %q is not sha256: and 64 hexadecimal digits in lower case, or sha512: and 128", s)
}

// isIPv6 reports whether a host is an address in brackets (RFC 3986, section 3.2.2), without a zone.
func isIPv6(host string) bool {
	in, open := strings.CutPrefix(host, "[")
	in, shut := strings.CutSuffix(in, "]")
	a, err := netip.ParseAddr(in)
	return open && shut && err == nil && a.Is6() && a.Zone() == ""
}

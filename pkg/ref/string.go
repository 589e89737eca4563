package ref

import "strings"

// String prints the canonical form; Parse of it gives the same Ref.
func (r Ref) String() string {
	switch r.Kind {
	case "":
		return ""
	case Registry:
		return unmistakable(r.Repository() + r.suffix())
	case Store:
		return "store:" + r.Name + r.suffix()
	default:
		return string(r.Kind) + ":" + r.pathString()
	}
}

// Familiar prints the short form people write: "debian:bookworm", and is the name of a ref in the store.
func (r Ref) Familiar() string {
	switch r.Kind {
	case Registry:
		return unmistakable(r.shortName() + r.suffix())
	case Store:
		return r.Name + r.suffix()
	default:
		return r.String()
	}
}

// Repository is HOST/REPO of a registry reference.
func (r Ref) Repository() string { return r.Host + "/" + r.Repo }

// Identifier is what names the manifest within its repository: the digest if
// there is one, else the tag.
func (r Ref) Identifier() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// Endpoint is the HOST[:PORT] to connect to: docker.io is served elsewhere.
func (r Ref) Endpoint() string {
	if r.Host == dockerHub {
		return "registry-1." + dockerHub
	}
	return r.Host
}

// suffix is [:TAG][@DIGEST].
func (r Ref) suffix() string {
	s := ""
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// shortName is the name without docker.io/ and library/, where leaving them out
// loses nothing: docker.io/localhost/app keeps its host.
func (r Ref) shortName() string {
	full := r.Repository()
	short := strings.TrimPrefix(full, dockerHub+"/")
	for _, s := range []string{strings.TrimPrefix(short, hubOfficial), short} {
		if host, repo, err := splitHost(s); err == nil && host == r.Host && repo == r.Repo {
			return s
		}
	}
	return full
}

// unmistakable puts docker:// before a registry reference that would be read as
// another kind, or for a mistake: a host named "oci" with a port, an image named "store" or "dir".
func unmistakable(s string) string {
	if kind, rest := splitScheme(s); kind != Registry || rest != s || mistaken(s) != nil {
		return "docker://" + s
	}
	return s
}

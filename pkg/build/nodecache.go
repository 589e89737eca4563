package build

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
)

// nodeCache is --cache-from or --cache-to of builds that are solved as a whole on nodes. BuildKit itself reads and writes
// it; one platform's build replaces it as a whole, so each has a place of its own: TAG-linux-arm64, or DIR/linux-arm64.
type nodeCache struct {
	remotecache.Spec

	insecure bool // http, or TLS that is not verified
}

// planCaches finds where the caches are, and says what nodes do not know of how this machine reaches them.
func (f *fleet) planCaches() error {
	said := map[string]bool{}
	for _, one := range []struct {
		specs []remotecache.Spec
		into  *[]nodeCache
	}{{f.engine.o.CacheFrom, &f.from}, {f.engine.o.CacheTo, &f.to}} {
		for _, s := range one.specs {
			c := nodeCache{Spec: s}
			if s.Type == remotecache.TypeRegistry {
				route, err := f.engine.client.Route(s.Ref)
				if err != nil {
					return fmt.Errorf("%s: %w", s, err)
				}
				if c.Ref, err = moved(s.Ref, route); err != nil {
					return fmt.Errorf("%s: %w", s, err)
				}
				c.insecure = route.Plain || route.Insecure
				f.hosts = append(f.hosts, c.Ref.Host)
				if text := unknownToNodes(c, route, f.elsewhere()); text != "" && !said[text] {
					said[text] = true
					f.engine.o.Events.Emit(event.Event{Kind: event.Warning, Text: text})
				}
			}
			*one.into = append(*one.into, c)
		}
	}
	return nil
}

// moved is where registries.conf says that r is.
func moved(r ref.Ref, route registry.Route) (ref.Ref, error) {
	if route.Moved == "" {
		return r, nil
	}
	to, err := ref.Parse("docker://" + route.Moved)
	if err != nil {
		return ref.Ref{}, err
	}
	to.Tag, to.Digest = r.Tag, r.Digest
	return to, nil
}

// unknownToNodes says what the daemons must be told before they reach a cache as this machine does, and in which words. What
// can be said in the build itself (http, TLS that is not verified, another place) is, and needs none.
func unknownToNodes(c nodeCache, route registry.Route, elsewhere bool) string {
	var lines []string
	if len(route.Mirrors) > 0 {
		names := make([]string, len(route.Mirrors))
		for i, m := range route.Mirrors {
			names[i] = fmt.Sprintf("%q", m.Name)
		}
		lines = append(lines, "  mirrors = ["+strings.Join(names, ", ")+"]")
	}
	if route.Trusted {
		lines = append(lines, `  ca = ["/etc/buildkit/certs/`+strings.ReplaceAll(c.Ref.Host, ":", "_")+`.crt"]`)
	}
	switch {
	case len(lines) > 0:
		return fmt.Sprintf("%s is read and written by the nodes, which know nothing of this machine's registries.conf and certs.d: "+
			"unless they have it already, say in the buildkitd.toml of each\n[registry.%q]\n%s", c.Spec, c.Ref.Host, strings.Join(lines, "\n"))
	case route.Loopback && elsewhere:
		return fmt.Sprintf("%s is read and written by the nodes, to each of which %s is the machine that it runs on itself: "+
			"give it a name that means the same everywhere", c.Spec, c.Ref.Host)
	}
	return ""
}

// elsewhere reports whether a node may be on another machine.
func (f *fleet) elsewhere() bool {
	return slices.ContainsFunc(f.members, func(m *member) bool {
		u, err := url.Parse(m.candidate.Node.Endpoint)
		if err != nil || m.conn == nil || u.Scheme == "unix" {
			return false
		}
		ip := net.ParseIP(u.Hostname())
		return u.Scheme != "tcp" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

// caches are the places of one platform's records.
func (f *fleet) caches(p platform.Platform) (from, to []buildkit.Cache) {
	for _, c := range f.from {
		for _, own := range []bool{true, false} {
			if place, ok := c.place(p, own); ok && (own || c.Type == remotecache.TypeRegistry) {
				if c.Type == remotecache.TypeLocal {
					if !hasCache(place.Attrs["dest"]) {
						continue // as at the first build
					}
					place.Attrs["src"] = place.Attrs["dest"]
					delete(place.Attrs, "dest")
				}
				from = append(from, place)
			}
		}
	}
	for _, c := range f.to {
		place, ok := c.place(p, true)
		if !ok {
			continue
		}
		place.Attrs["oci-mediatypes"] = "true"
		if c.Max {
			place.Attrs["mode"] = "max"
		}
		if c.IgnoreError {
			place.Attrs["ignore-error"] = "true"
		}
		to = append(to, place)
	}
	return from, to
}

// place is where the records are: p's own, or those that are not of any platform.
func (c nodeCache) place(p platform.Platform, own bool) (buildkit.Cache, bool) {
	suffix := strings.ReplaceAll(p.String(), "/", "-")
	switch c.Type {
	case remotecache.TypeRegistry:
		r := c.Ref
		if own {
			r = r.WithTag(r.Tag + "-" + suffix)
		}
		attrs := map[string]string{"ref": r.String()}
		if c.insecure {
			attrs["registry.insecure"] = "true"
		}
		return buildkit.Cache{Type: "registry", Attrs: attrs}, true
	case remotecache.TypeLocal:
		return buildkit.Cache{Type: "local", Attrs: map[string]string{"dest": filepath.Join(c.Ref.Path, suffix)}}, true
	}
	return buildkit.Cache{}, false
}

// cacheDirs are the directories of caches, for all platforms.
func (f *fleet) cacheDirs() []string {
	var out []string
	for i, list := range [][]nodeCache{f.from, f.to} {
		for _, c := range list {
			for _, p := range f.platforms() {
				if place, ok := c.place(p, true); ok && place.Type == "local" && (i > 0 || hasCache(place.Attrs["dest"])) {
					out = append(out, place.Attrs["dest"])
				}
			}
		}
	}
	return out
}

// hasCache reports whether there is a cache in a directory.
func hasCache(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "index.json"))
	return err == nil
}

package registry

import (
	"net/url"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Route is what this client does to reach a reference beyond what its name says. Another machine that is given the name
// alone does none of it. The zero value is a registry that is reached by its name, over TLS that the system trusts.
type Route struct {
	Loopback bool   // the name means this machine
	Plain    bool   // http was asked for
	Insecure bool   // TLS is unverified
	Trusted  bool   // files of certs.d, or of options, say whom to trust or who we are
	Moved    string // HOST[:PORT]/REPO that registries.conf puts in its place; "" is the name itself
	Mirrors  []Mirror
}

// Mirror is a place that is asked first.
type Mirror struct {
	Name     string // HOST[:PORT]/REPO
	Insecure bool
}

// ByName reports whether a machine that is given the name alone reaches the same.
func (r Route) ByName() bool {
	return !r.Loopback && !r.Plain && !r.Insecure && !r.Trusted && r.Moved == "" && len(r.Mirrors) == 0
}

// Route says how a reference is pulled. It does no request; an error is that of a pull that is forbidden.
func (c *Client) Route(r ref.Ref) (Route, error) {
	if err := check(r); err != nil {
		return Route{}, err
	}
	places, err := c.places(r, true)
	if err != nil || len(places) == 0 {
		return Route{}, err
	}
	var out Route
	for _, p := range places[:len(places)-1] {
		out.Mirrors = append(out.Mirrors, Mirror{Name: p.Ref.Repository(), Insecure: p.Insecure})
	}
	home := places[len(places)-1]
	if home.Ref.Repository() != r.Repository() {
		out.Moved = home.Ref.Repository()
	}
	h := c.hostAt(home)
	out.Loopback, out.Plain, out.Insecure = h.loopback, h.plain, h.insecure
	t, err := c.trustFor(h, &url.URL{Scheme: "https", Host: h.endpoint})
	out.Trusted = t != nil
	return out, err
}

package registry

import (
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// What tests of the package registry_test reach inside.
var (
	Challenges   = func(h http.Header) []challenge { return parseChallenges(h) }
	Printable    = printable
	SameSite     = sameSite
	NextPage     = nextPage
	ContentRange = contentRange
	UploadRange  = uploadRange
	RetryAfter   = retryAfter
	ErrorText    = errorText
	MediaType    = mediaType
	MergeScopes  = func(named, repo, actions string) []string { return mergeScopes(named, []scope{{repo, actions}}) }
	ReachOf      = func(a netip.Addr) int { return int(reachOf(a)) }
)

// Reaches, as numbers.
const (
	Public    = int(public)
	Private   = int(private)
	Loopback  = int(loopback)
	LinkLocal = int(linkLocal)
)

// Allows is reach.allows.
func Allows(from, to int) bool { return reach(from).allows(reach(to)) }

// SetTimeouts shortens the waits of a client.
func (c *Client) SetTimeouts(idle, header, helper time.Duration) {
	c.idle, c.headerWait, c.helper = idle, header, helper
}

// SetMaxTags lowers what Tags reads at most.
func (c *Client) SetMaxTags(n int) { c.maxTags = n }

// SetNetwork puts a name service and a geography of addresses under a client.
func (c *Client) SetNetwork(resolve func(string) string, reachOf func(netip.Addr) int) {
	c.pool.resolve = resolve
	if reachOf != nil {
		c.pool.reachOf = func(a netip.Addr) reach { return reach(reachOf(a)) }
	}
}

// SetProxy stands in for the environment's proxy.
func (c *Client) SetProxy(proxy func(*http.Request) (*url.URL, error)) { c.pool.proxy = proxy }

// Scheme, Param of a challenge.
func (c challenge) Scheme() string           { return c.scheme }
func (c challenge) Param(name string) string { return c.params[name] }

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// host is what the client has learned of one registry.
type host struct {
	name     string // HOST[:PORT] as in references
	endpoint string // HOST[:PORT] to connect to
	plain    bool   // http by option
	loopback bool   // http unless it turns out to speak TLS
	insecure bool
	lenient  bool // http if it does not speak TLS: registries.conf says that it is insecure

	learned  sync.Mutex
	tls      bool  // a loopback registry turned out to speak TLS
	settled  bool  // tls is known
	answered bool  // something came back from it, ever
	nude     bool  // a lenient registry turned out not to speak TLS
	down     bool  // a mirror that could not be reached
	reach    reach // how near its address is
	grants   map[string]*grant
	lies     map[digest.Digest]bool
	gate     chan struct{} // closed when the pause that the registry asked for is over; nil when there is none
}

// hostTable holds one host for each name.
type hostTable struct {
	table  sync.Mutex
	byName map[string]*host
}

func (c *Client) host(r ref.Ref) *host { return c.hostAt(Place{Ref: r}) }

func (c *Client) hostAt(p Place) *host {
	r, key := p.Ref, p.Ref.Host
	if p.Insecure {
		key += " insecure"
	}
	c.hosts.table.Lock()
	defer c.hosts.table.Unlock()
	if h := c.hosts.byName[key]; h != nil {
		return h
	}
	ep := r.Endpoint()
	h := &host{
		name:     r.Host,
		endpoint: ep,
		plain:    c.o.PlainHTTP.Has(r.Host) || c.o.PlainHTTP.Has(ep),
		loopback: isLoopback(ep),
		insecure: c.o.Insecure.Has(r.Host) || c.o.Insecure.Has(ep) || p.Insecure,
		lenient:  p.Insecure,
		grants:   map[string]*grant{},
	}
	if c.hosts.byName == nil {
		c.hosts.byName = map[string]*host{}
	}
	c.hosts.byName[key] = h
	return h
}

// origin is the scheme and address of the registry, as far as is known.
func (h *host) origin() *url.URL {
	h.learned.Lock()
	defer h.learned.Unlock()
	u := &url.URL{Scheme: "https", Host: h.endpoint}
	if h.plain || h.nude || h.loopback && !h.tls {
		u.Scheme = "http"
	}
	return u
}

// mayBeTLS reports whether a failure of a plain request may mean that the
// registry speaks TLS: a loopback one that has not answered yet.
func (h *host) mayBeTLS() bool {
	h.learned.Lock()
	defer h.learned.Unlock()
	return h.loopback && !h.plain && !h.settled
}

// mayBePlain reports whether a failure of a request over TLS may mean that the registry speaks none, where that is allowed.
func (h *host) mayBePlain(u *url.URL, err error) bool {
	var record tls.RecordHeaderError // what came was not TLS
	return h.lenient && u.Scheme == "https" && !h.hasAnswered() && sameOrigin(u, h.origin()) && (errors.As(err, &record) || refused(err))
}

// bare records that a lenient registry speaks no TLS.
func (h *host) bare(is bool) {
	h.learned.Lock()
	defer h.learned.Unlock()
	h.nude = is
}

// settle records what a loopback registry speaks.
func (h *host) settle(tls bool) {
	h.learned.Lock()
	defer h.learned.Unlock()
	if !h.settled {
		h.settled, h.tls = true, tls
	}
}

func (h *host) answers() {
	h.learned.Lock()
	defer h.learned.Unlock()
	h.answered = true
}

func (h *host) hasAnswered() bool {
	h.learned.Lock()
	defer h.learned.Unlock()
	return h.answered
}

// lie notes that a mirror had other bytes under a digest; lied tells.
func (h *host) lie(d digest.Digest) {
	h.learned.Lock()
	defer h.learned.Unlock()
	if h.lies == nil {
		h.lies = map[digest.Digest]bool{}
	}
	h.lies[d] = true
}

func (h *host) lied(d digest.Digest) bool {
	h.learned.Lock()
	defer h.learned.Unlock()
	return h.lies[d]
}

// speaksTLS tries a handshake. No request and no credential is sent.
func (h *host) speaksTLS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, port := splitPort(h.endpoint)
	addr := h.endpoint
	if port == "" {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), "443")
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // only asks whether it is TLS at all
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// splitPort cuts the port off HOST[:PORT].
func splitPort(hostport string) (host, port string) {
	if colon := strings.LastIndexByte(hostport, ':'); colon > strings.LastIndexByte(hostport, ']') {
		return hostport[:colon], hostport[colon+1:]
	}
	return hostport, ""
}

// isLoopback reports whether HOST[:PORT] is this machine by its very name, so
// that a plain connection cannot be listened to on the way.
func isLoopback(hostport string) bool {
	name, _ := splitPort(strings.ToLower(hostport))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

// upgrade mends an address that a registry behind a TLS proxy made up for
// itself: http to the same host as a request over https.
func upgrade(u, from *url.URL) {
	if u.Scheme == "http" && from.Scheme == "https" && strings.EqualFold(u.Hostname(), from.Hostname()) &&
		(u.Port() == "" || u.Port() == from.Port()) {
		u.Scheme, u.Host = "https", from.Host
	}
}

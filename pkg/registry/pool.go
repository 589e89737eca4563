package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Threat: a registry chooses where its redirects, token realms and upload
// locations point. Names are checked where it counts, at the dial, after DNS:
// what an address looks like in a URL ("0x7f.1", a name that resolves to
// 169.254.169.254) does not matter.

// reach is how near an address is. A registry may send us to addresses as near
// as its own, never nearer: one on the internet not into our network, one in
// our network not to this machine.
type reach int

const (
	public reach = iota
	private
	loopback
	linkLocal // and everything else that is nobody's server: metadata services live here
)

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

func reachOf(ip netip.Addr) reach {
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback():
		return loopback
	case ip.IsPrivate() || sharedSpace.Contains(ip):
		return private
	case !ip.IsGlobalUnicast(): // link-local, multicast, unspecified, broadcast
		return linkLocal
	}
	return public
}

// allows reports whether a registry at r may send us to an address at to.
func (r reach) allows(to reach) bool {
	switch to {
	case public:
		return true
	case private:
		return r == private || r == loopback
	}
	return r == to
}

var errAddress = errors.New("address refused")

// pool holds the connections: one transport for the registries themselves and,
// with the dial guarded, one for each reach of where they may send us.
type pool struct {
	made       sync.Mutex
	transports map[transportKey]*http.Transport

	requests atomic.Int64

	// Tests stand in for DNS and for the rest of the network.
	resolve func(hostport string) string
	proxy   func(*http.Request) (*url.URL, error) // nil: the environment's
	reachOf func(netip.Addr) reach
}

type transportKey struct {
	insecure bool
	guarded  bool
	from     reach
	trust    *trust
}

func (p *pool) get(k transportKey) (*http.Transport, error) {
	p.made.Lock()
	defer p.made.Unlock()
	if t := p.transports[k]; t != nil {
		return t, nil
	}
	d := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	if k.guarded {
		d.Control = func(_, address string, _ syscall.RawConn) error { return p.checkDial(k.from, address) }
	}
	dial := d.DialContext
	if p.resolve != nil {
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return d.DialContext(ctx, network, p.resolve(addr))
		}
	}
	t := &http.Transport{
		Proxy:               p.proxyFor,
		DialContext:         asideDial(dial),
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		MaxIdleConns:        100,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 20 * time.Second,
		DisableCompression:  true, // digests are of the bytes as they are stored
		// There are as many as connections, and what streams goes past them: its own pieces are larger.
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
		MaxResponseHeaderBytes: 256 << 10,
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: k.insecure} //nolint:gosec // asked for by Options.Insecure
	if k.trust != nil {
		roots, err := k.trust.roots()
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.RootCAs, t.TLSClientConfig.Certificates = roots, k.trust.client
	}
	if p.transports == nil {
		p.transports = map[transportKey]*http.Transport{}
	}
	p.transports[k] = t
	return t, nil
}

// Close closes the connections that are not in use. The client stays usable.
func (c *Client) Close() {
	c.pool.made.Lock()
	defer c.pool.made.Unlock()
	for _, t := range c.pool.transports {
		t.CloseIdleConnections()
	}
}

func (p *pool) checkDial(from reach, address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is not an address", errAddress, address)
	}
	if to := p.reachOf(ap.Addr()); !from.allows(to) {
		return fmt.Errorf("%w: the registry points at %s, which is not a public address", errAddress, ap.Addr())
	}
	return nil
}

func (p *pool) proxyFor(req *http.Request) (*url.URL, error) {
	if p.proxy != nil {
		return p.proxy(req)
	}
	return http.ProxyFromEnvironment(req)
}

// viaProxy reports whether u is reached through a proxy. A proxy resolves names
// itself: to guard the dial to it would guard the wrong address.
func (p *pool) viaProxy(u *url.URL) bool {
	via, err := p.proxyFor(&http.Request{URL: u})
	return err == nil && via != nil
}

// checkProxied is checkDial for what a proxy dials: it sees addresses only where they are spelled out. What is neither an
// address nor a name, but could be read as an address ("0x7f.1", "2130706433"), is refused.
func (p *pool) checkProxied(from reach, u *url.URL) error {
	name := strings.TrimSuffix(u.Hostname(), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		if !from.allows(p.reachOf(ip)) {
			return fmt.Errorf("%w: the registry points at %s, which is not a public address", errAddress, ip)
		}
		return nil
	}
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return fmt.Errorf("%w: the registry points at %q, which is no name", errAddress, printable(name))
	}
	return nil
}

// transport picks the pool for a request to u, on behalf of h.
func (c *Client) transport(h *host, u *url.URL, viaProxy bool) (_ *http.Transport, err error) {
	c.pool.requests.Add(1)
	own := sameOrigin(u, h.origin())
	h.learned.Lock()
	from := h.reach
	h.learned.Unlock()
	if viaProxy && !own {
		if err := c.pool.checkProxied(from, u); err != nil {
			return nil, err
		}
	}
	k := transportKey{insecure: own && h.insecure || c.o.Insecure.Has(u.Host)}
	if u.Scheme == "https" {
		if k.trust, err = c.trustFor(h, u); err != nil {
			return nil, err
		}
	}
	if own || viaProxy {
		return c.pool.get(k)
	}
	k.guarded, k.from = true, from
	return c.pool.get(k)
}

// remember notes how near the registry itself is.
func (c *Client) remember(h *host, conn net.Conn) {
	ap, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	h.learned.Lock()
	defer h.learned.Unlock()
	h.reach = c.pool.reachOf(ap.Addr())
}

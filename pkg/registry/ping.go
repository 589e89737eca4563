package registry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Ping asks the registry at host (HOST[:PORT]) whether the keychain's credentials are good. asked is false when the registry
// wants none, so that nothing is known about them; ErrDenied says that they are not.
func (c *Client) Ping(ctx context.Context, host string) (asked bool, err error) {
	r, err := ref.Parse(host + "/x")
	if err != nil {
		return false, fmt.Errorf("%w: %q is not a registry: %w", ErrInvalid, host, err)
	}
	if r.Host != host {
		return false, fmt.Errorf("%w: %q is not HOST or HOST:PORT", ErrInvalid, host)
	}
	h := c.host(r)
	rq := &request{op: "logging in to", what: host, host: h, method: http.MethodGet, path: "/v2/", header: http.Header{}}
	resp, err := c.do(ctx, rq)
	if err != nil {
		return false, err
	}
	h.learned.Lock()
	asked = h.grants[scopeKey(nil)] != nil
	h.learned.Unlock()
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		discard(resp)
		return asked, nil
	case resp.StatusCode == http.StatusNotFound && resp.Header.Get("Docker-Distribution-Api-Version") != "":
		discard(resp) // some answer nothing here but speak the protocol
		return asked, nil
	}
	return asked, rq.fail(resp)
}

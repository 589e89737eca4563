package registry

import (
	"context"
	"net/http"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Delete removes what r names: a manifest and every tag on it when r has a digest, else the tag alone, where the registry
// can do that (many can not: an *Error with status 400 or 405).
func (c *Client) Delete(ctx context.Context, r ref.Ref) error {
	if err := checkManifest(r); err != nil {
		return err
	}
	rq := c.request(r, "deleting", http.MethodDelete, "/manifests/"+r.Identifier(), actDelete)
	resp, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return rq.fail(resp)
	}
	discard(resp)
	return nil
}

const actDelete = "pull,push,delete"

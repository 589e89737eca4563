package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

const (
	maxTagPage  = 16 << 20 // bytes
	maxTagPages = 10_000
	maxTags     = 1_000_000 // of one repository
)

// Tags lists the tags of r's repository in lexical order, following pagination.
func (c *Client) Tags(ctx context.Context, r ref.Ref) (tags []string, err error) {
	if err := check(r); err != nil {
		return nil, err
	}
	err = c.homeFirst(ctx, r, func(p Place) (err error) {
		tags, err = c.tagsAt(ctx, p)
		return err
	})
	return tags, err
}

func (c *Client) tagsAt(ctx context.Context, p Place) ([]string, error) {
	rq := c.requestAt(p, "listing tags of", http.MethodGet, "/tags/list", actPull)
	rq.what = p.Ref.Repository()
	rq.query = "n=1000"
	var tags []string
	seen := map[string]bool{}
	for page := 1; ; page++ {
		got, next, err := c.tagPage(ctx, rq)
		if err != nil {
			return nil, err
		}
		tags = append(tags, got...)
		if next == nil {
			slices.Sort(tags) // distribution 2.8 lists them in any order
			return slices.Compact(tags), nil
		}
		if seen[next.String()] || page == maxTagPages || len(tags) > c.maxTags {
			return nil, fmt.Errorf("listing tags of %s: the registry's pages do not end", rq.what)
		}
		seen[next.String()] = true
		rq.url = next
	}
}

func (c *Client) tagPage(ctx context.Context, rq *request) (tags []string, next *url.URL, err error) {
	resp, err := c.do(ctx, rq)
	if err != nil {
		return nil, nil, err
	}
	if (resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable) && rq.url == nil && rq.query != "" {
		discard(resp) // a registry with a lower limit for the page
		rq.query = ""
		return c.tagPage(ctx, rq)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, rq.fail(resp)
	}
	defer resp.Body.Close()
	body, err := readAll(resp.Body, maxTagPage)
	if err != nil {
		return nil, nil, rq.explain(err)
	}
	var doc struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, nil, fmt.Errorf("listing tags of %s: %w: not a list of tags: %w", rq.what, ErrCorrupt, err)
	}
	for _, t := range doc.Tags {
		if err := ref.CheckTag(t); err != nil {
			return nil, nil, fmt.Errorf("listing tags of %s: %w: %w", rq.what, ErrCorrupt, err)
		}
	}
	next, err = nextPage(resp)
	if err == nil && next != nil {
		upgrade(next, resp.Request.URL)
		if !sameOrigin(next, resp.Request.URL) {
			err = fmt.Errorf("the next page is at another registry (%s): refused", printable(next.Host))
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing tags of %s: %w", rq.what, err)
	}
	return doc.Tags, next, nil
}

// nextPage reads the Link header (RFC 8288) for rel="next"; nil when there is none.
func nextPage(resp *http.Response) (*url.URL, error) {
	for _, line := range resp.Header.Values("Link") {
		for line != "" {
			open := strings.IndexByte(line, '<')
			if open < 0 {
				break
			}
			target, rest, ok := strings.Cut(line[open+1:], ">")
			if !ok {
				break
			}
			params := rest
			if more := strings.Index(rest, ",<"); more >= 0 {
				params, line = rest[:more], rest[more+1:]
			} else if more := strings.Index(rest, ", <"); more >= 0 {
				params, line = rest[:more], rest[more+1:]
			} else {
				line = ""
			}
			if isNext(params) {
				return resp.Request.URL.Parse(target)
			}
		}
	}
	return nil, nil
}

func isNext(params string) bool {
	for _, p := range strings.Split(params, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(strings.TrimSpace(key), "rel") && strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next") {
			return true
		}
	}
	return false
}

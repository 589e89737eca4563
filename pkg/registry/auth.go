package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Threat: this file handles passwords and tokens. They are held in memory only,
// go into the Authorization header or a form and nowhere else, and no error or
// event contains them.

// maxFetches is how many new tokens one request may cost.
const maxFetches = 2

// maxToken is the longest answer of a token server, in bytes.
const maxToken = 1 << 20

// scope is what may be done with one repository.
type scope struct {
	repo    string
	actions string // "pull" or "pull,push"
}

func (s scope) String() string { return "repository:" + s.repo + ":" + s.actions }

const (
	actPull = "pull"
	actPush = "pull,push"
)

// grant is an Authorization that a registry accepted, or may.
type grant struct {
	fetching sync.Mutex // held while a new one is got, so that many workers get one
	value    string     // guarded by host.learned
}

func scopeKey(scopes []scope) string {
	keys := make([]string, len(scopes))
	for i, s := range scopes {
		keys[i] = s.String()
	}
	return strings.Join(keys, " ")
}

// known returns the Authorization to begin with; "" when there is none yet. What
// may push may also pull.
func (h *host) known(scopes []scope) string {
	h.learned.Lock()
	defer h.learned.Unlock()
	if len(scopes) == 1 && scopes[0].actions == actPull {
		if g := h.grants[scopeKey([]scope{{scopes[0].repo, actPush}})]; g != nil && g.value != "" {
			return g.value
		}
	}
	if g := h.grants[scopeKey(scopes)]; g != nil && g.value != "" {
		return g.value
	}
	if len(scopes) == 0 {
		return ""
	}
	// A password is not for one action: no 401 is needed to offer it again.
	for _, actions := range []string{actPush, actPull} {
		if g := h.grants[scopeKey([]scope{{scopes[0].repo, actions}})]; g != nil && strings.HasPrefix(g.value, "Basic ") {
			return g.value
		}
	}
	return ""
}

// answer gets the Authorization that a 401 asks for. It returns used itself when
// there is none better.
func (c *Client) answer(ctx context.Context, rq *request, resp *http.Response, used string) (string, error) {
	h, key := rq.host, scopeKey(rq.scopes)
	h.learned.Lock()
	g := h.grants[key]
	if g == nil {
		g = &grant{}
		h.grants[key] = g
	}
	h.learned.Unlock()

	g.fetching.Lock()
	defer g.fetching.Unlock()
	h.learned.Lock()
	current := g.value
	h.learned.Unlock()
	if current != "" && current != used {
		return current, nil // another worker was here
	}
	value, err := c.negotiate(ctx, rq, resp, used)
	if err != nil {
		return "", err
	}
	h.learned.Lock()
	g.value = value
	h.learned.Unlock()
	return value, nil
}

func (c *Client) negotiate(ctx context.Context, rq *request, resp *http.Response, used string) (string, error) {
	cs := parseChallenges(resp.Header)
	bearer, hasBearer := pick(cs, "bearer")
	_, hasBasic := pick(cs, "basic")
	if !hasBearer && !hasBasic {
		return used, nil
	}
	creds, credErr := c.credentials(ctx, rq)
	if hasBearer {
		if creds.RegistryToken != "" {
			return "Bearer " + creds.RegistryToken, nil
		}
		token, err := c.fetchToken(ctx, rq, bearer, creds)
		if err != nil {
			return "", errors.Join(err, credErr)
		}
		return "Bearer " + token, nil
	}
	if creds.Username == "" && creds.Password == "" {
		err := fmt.Errorf("%s %s: %w: %s asks for a user and password: put them in ~/.docker/config.json (docker login, podman login)",
			rq.op, rq.what, ErrDenied, rq.host.name)
		return "", errors.Join(err, credErr)
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(creds.Username+":"+creds.Password)), nil
}

// fetchToken asks the realm for a token that covers what the request needs and
// what the registry said is needed.
func (c *Client) fetchToken(ctx context.Context, rq *request, ch challenge, creds authn.AuthConfig) (string, error) {
	secret := creds.Username != "" || creds.Password != "" || creds.IdentityToken != ""
	realm, err := c.checkRealm(rq.host, ch.params["realm"], secret)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", rq.op, rq.what, err)
	}
	scopes := mergeScopes(ch.params["scope"], rq.scopes)
	op := "getting a token from"
	if len(scopes) > 0 {
		op = "getting a token for " + strings.Join(scopes, " ") + " from"
	}
	tr := &request{
		op: op, what: realm.Host,
		host: rq.host, scopes: rq.scopes, method: http.MethodGet, url: realm,
		header: http.Header{"Accept": {"application/json"}},
	}
	form := url.Values{"scope": scopes}
	if service := ch.params["service"]; service != "" {
		form.Set("service", service)
	}
	auth := ""
	switch {
	case creds.IdentityToken != "":
		form = url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {creds.IdentityToken},
			"client_id": {"manifestctl"}, "service": {ch.params["service"]}, "scope": {strings.Join(scopes, " ")},
		}
		tr.method = http.MethodPost
		tr.header.Set("Content-Type", "application/x-www-form-urlencoded")
		body := form.Encode()
		tr.size = int64(len(body))
		tr.body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	case secret:
		form.Set("account", creds.Username)
		auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(creds.Username+":"+creds.Password))
	}
	if tr.method == http.MethodGet {
		q := realm.Query()
		for k, v := range form {
			q[k] = v
		}
		realm.RawQuery = q.Encode()
	}
	resp, err := c.askRealm(ctx, tr, auth)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", tr.fail(resp)
	}
	defer resp.Body.Close()
	token, err := readToken(resp.Body)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", tr.op, tr.what, err)
	}
	return token, nil
}

// askRealm makes the request to the token server, with patience but without
// redirects: the realm was checked, and what it points at was not.
func (c *Client) askRealm(ctx context.Context, tr *request, auth string) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := c.roundTrip(ctx, tr, tr.target(), auth)
		again, pause := c.passing(ctx, tr.host, resp, err)
		if !again || try == tries {
			if err != nil {
				return nil, tr.explain(err)
			}
			return resp, nil
		}
		if resp != nil {
			discard(resp)
		}
		if err := c.o.Sleep(ctx, max(pause, backoff(try))); err != nil {
			return nil, tr.explain(err)
		}
	}
}

// readToken reads the answer of a token server (distribution's token
// authentication specification; access_token is OAuth's name for it). How long
// it lasts is not looked at: clocks differ, and a 401 says when it is over.
func readToken(r io.Reader) (string, error) {
	body, err := readAll(r, maxToken)
	if err != nil {
		return "", err
	}
	var doc struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", fmt.Errorf("the answer is no token document: %w", err)
	}
	token := doc.Token
	if token == "" {
		token = doc.Access
	}
	if token == "" {
		return "", errors.New("the answer holds no token")
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return "", errors.New("the token holds characters that do not belong in a header")
		}
	}
	return token, nil
}

// checkRealm decides whether the token server that a registry names may be
// asked, and whether it may see the user's credentials.
func (c *Client) checkRealm(h *host, realm string, secret bool) (*url.URL, error) {
	o := h.origin()
	u, err := o.Parse(realm)
	if err != nil || realm == "" {
		return nil, fmt.Errorf("%w: %s names %q as its token server", ErrDenied, h.name, printable(realm))
	}
	u.Fragment = ""
	if err := checkHop(o, u); err != nil {
		return nil, fmt.Errorf("%w: the token server of %s: %w", ErrDenied, h.name, err)
	}
	same := sameOrigin(u, o)
	trusted := same || c.o.Realms.Has(u.Host) ||
		u.Scheme == "https" && sameSite(u.Hostname(), o.Hostname()) ||
		h.loopback && isLoopback(u.Host)
	if secret && !trusted {
		return nil, fmt.Errorf("%w: %s wants its credentials sent to %s://%s, which is not of the same domain: refused; if %s belongs to it, --token-server=%s allows it",
			ErrDenied, h.name, u.Scheme, u.Host, u.Hostname(), u.Host)
	}
	return u, nil
}

// mergeScopes joins the scopes that the registry named with those of the request.
func mergeScopes(named string, wanted []scope) []string {
	out := strings.Fields(named)
	for _, w := range wanted {
		covered := false
		for _, s := range out {
			covered = covered || covers(s, w)
		}
		if !covered {
			out = append(out, w.String())
		}
	}
	return out
}

// covers reports whether a scope as text allows all that w asks.
func covers(s string, w scope) bool {
	actions, ok := strings.CutPrefix(s, "repository:"+w.repo+":")
	if !ok {
		return false
	}
	have := strings.Split(actions, ",")
	for _, a := range strings.Split(w.actions, ",") {
		if !slices.Contains(have, a) && !slices.Contains(have, "*") {
			return false
		}
	}
	return true
}

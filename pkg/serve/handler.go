package serve

import (
	"net/http"
	"net/url"
	"strings"
)

// methods of each endpoint; HEAD goes with GET.
var methods = map[endpoint]map[string]func(*Server, http.ResponseWriter, *http.Request, route) error{
	epBase:      {http.MethodGet: (*Server).getBase},
	epCatalog:   {http.MethodGet: (*Server).getCatalog},
	epTags:      {http.MethodGet: (*Server).getTags},
	epManifest:  {http.MethodGet: (*Server).getManifest, http.MethodPut: (*Server).putManifest, http.MethodDelete: (*Server).deleteManifest},
	epBlob:      {http.MethodGet: (*Server).getBlob, http.MethodDelete: (*Server).deleteBlob},
	epUploads:   {http.MethodPost: (*Server).postUpload},
	epUpload:    {http.MethodGet: (*Server).getUpload, http.MethodPatch: (*Server).patchUpload, http.MethodPut: (*Server).putUpload, http.MethodDelete: (*Server).deleteUpload},
	epReferrers: {http.MethodGet: (*Server).getReferrers},
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff") // content is never a page of this origin
	x, start := newExchange(w, r), s.now()
	s.metrics.inFlight.Add(1)
	defer func() {
		s.metrics.inFlight.Add(-1)
		x.leave(r, s.timeouts.body())
		s.ended(r, x, start)
	}()
	if err := s.serve(x, r); err != nil {
		s.log.Debug("refused", "method", r.Method, "path", r.URL.Path, "reason", err)
		s.refuse(x, r, err)
		return
	}
	s.log.Debug("served", "method", r.Method, "path", r.URL.Path)
}

func (s *Server) serve(w *exchange, r *http.Request) error {
	if r.Header.Get("Origin") != "" {
		// Clients of registries send no Origin. A page that a browser shows
		// could otherwise push to the registry on its user's machine.
		return codeDenied
	}
	if s.self != "" && strings.Contains(r.UserAgent(), s.self) {
		return codeLoop
	}
	rt, bad := parseRoute(r.URL.Path)
	w.route = rt
	user, err := s.users.admit(r)
	w.user = user
	switch {
	case err != nil:
		return err
	case bad != nil:
		return bad
	}
	rt.user = user
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	do := methods[rt.ep][method]
	switch {
	case do == nil:
		w.Header().Set("Allow", allowed(rt.ep))
		return codeUnsupported
	case s.readOnly && method != http.MethodGet:
		w.Header().Set("Allow", "GET, HEAD")
		return codeReadOnly
	}
	return do(s, w, r, rt)
}

func allowed(ep endpoint) string {
	var list []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if methods[ep][m] == nil {
			continue
		}
		list = append(list, m)
		if m == http.MethodGet {
			list = append(list, http.MethodHead)
		}
	}
	return strings.Join(list, ", ")
}

func (s *Server) getBase(w http.ResponseWriter, _ *http.Request, _ route) error {
	s.users.challenge(w.Header())
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}"))
	return nil
}

// query reads the parameters of a request strictly: a broken one is refused
// rather than dropped.
func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, codeUnsupported.as(http.StatusBadRequest).with("malformed query")
	}
	return q, nil
}

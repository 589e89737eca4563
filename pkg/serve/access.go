package serve

import (
	"fmt"
	"net/http"
	"slices"
)

// realm names this registry to whoever asks for a password.
const realm = "manifestctl"

// access says who may do what. Without users everybody may everything.
type access struct {
	users     *users
	anonymous bool     // who has no name may read
	writers   []string // who may change things; nil: all users
}

func newAccess(o *Options, s *Server) (access, error) {
	a := access{anonymous: o.AnonymousRead, writers: o.Writers}
	if o.Users == "" {
		if a.anonymous || len(a.writers) > 0 {
			return a, fmt.Errorf("%w: who may do what makes sense with users only", ErrInvalid)
		}
		return a, nil
	}
	u, err := openUsers(o.Users, s.log)
	if err != nil {
		return a, err
	}
	a.users = u
	for _, w := range a.writers {
		if !slices.Contains(u.names(), w) {
			return a, fmt.Errorf("%w: %q may write, and is no user of %s", ErrInvalid, w, o.Users)
		}
	}
	return a, nil
}

// admit returns who makes a request, "" for nobody in particular, if that one may
// make it. What needs no right to write is said by the method alone: GET and HEAD
// change nothing.
func (a *access) admit(r *http.Request) (user string, err error) {
	if a.users == nil {
		return "", nil
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	name, password, ok := r.BasicAuth()
	switch {
	case !ok && r.Header.Get("Authorization") != "":
		return "", codeUnauthorized.with("only Basic authentication is known")
	case !ok && reads && a.anonymous:
		return "", nil
	case !ok:
		return "", codeUnauthorized
	}
	right, err := a.users.check(r.Context(), name, password)
	switch {
	case err != nil:
		return "", err
	case !right:
		return "", codeUnauthorized.with("wrong name or password")
	case !reads && !a.mayWrite(name):
		return name, codeForbidden.with(fmt.Sprintf("the user %q may only read", name))
	}
	return name, nil
}

func (a *access) mayWrite(user string) bool {
	return len(a.writers) == 0 || slices.Contains(a.writers, user)
}

// challenge says how to log in. It stands beside a refusal, and also beside an
// anonymous answer of /v2/: clients that ask there once know then what to do
// before they push.
func (a *access) challenge(h http.Header) {
	if a.users != nil {
		h.Set("WWW-Authenticate", `Basic realm="`+realm+`", charset="UTF-8"`)
	}
}

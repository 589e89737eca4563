package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"unicode"
)

// maxErrorBody is how much of an error's body is read, and maxErrorText how
// many characters of it are shown.
const (
	maxErrorBody = 64 << 10
	maxErrorText = 600
)

// Error is an answer of a registry that says no.
type Error struct {
	Op     string // "pulling manifest"
	Ref    string // "localhost:5000/app:1.0", or a repository and a digest
	Host   string
	Status int
	Codes  []string // as the registry gave them: "MANIFEST_UNKNOWN"
	Text   string   // what it said, safe to print
	Hint   string   // what to do
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Op, e.Ref)
	switch {
	case e.Text != "":
		b.WriteString(e.Text)
	case e.Status == http.StatusNotFound:
		b.WriteString("not found")
	default:
		b.WriteString(strings.ToLower(http.StatusText(e.Status)))
	}
	fmt.Fprintf(&b, " (status %d from %s)", e.Status, e.Host)
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	return b.String()
}

// Is maps the status and codes to the kinds of this package.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrDenied:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case ErrNoRepository:
		return e.Status == http.StatusNotFound && e.has("NAME_UNKNOWN")
	case ErrBlobUnknown:
		return e.has("MANIFEST_BLOB_UNKNOWN") || e.has("BLOB_UNKNOWN") && e.Status == http.StatusBadRequest
	}
	return false
}

func (e *Error) has(code string) bool {
	for _, c := range e.Codes {
		if c == code {
			return true
		}
	}
	return false
}

// fail makes an Error of a response, and closes it.
func (rq *request) fail(resp *http.Response) error {
	defer resp.Body.Close()
	e := &Error{Op: rq.op, Ref: rq.what, Host: rq.host.name, Status: resp.StatusCode}
	if u := resp.Request.URL; u != nil && !strings.EqualFold(u.Host, rq.host.endpoint) {
		e.Host = u.Host + ", where " + rq.host.name + " redirects to"
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e.Codes, e.Text = errorText(body, resp.Header.Get("Content-Type"))
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Hint = "check the credentials for " + rq.host.name + " (--creds, `manifestctl login`, ~/.docker/config.json), and that they may " + rq.permission()
		if ch, ok := pick(parseChallenges(resp.Header), "bearer"); ok {
			e.Hint += printable(fmt.Sprintf(" (it wants a token of %s for %q)", ch.params["realm"], ch.params["scope"]))
		}
	case http.StatusProxyAuthRequired:
		e.Hint = proxyHint
	case http.StatusBadRequest:
		// As Go's servers say it, in HTTP/1.0; a HEAD has no words.
		if resp.TLS == nil && (strings.Contains(e.Text, "HTTP request to an HTTPS server") || e.Text == "" && !resp.ProtoAtLeast(1, 1)) {
			e.Hint = "the registry speaks TLS: take --plain-http away"
		}
	case http.StatusTooManyRequests:
		e.Hint = "the registry limits requests; try again later, or with credentials"
	case http.StatusRequestEntityTooLarge:
		e.Hint = "the registry, or a proxy before it, limits the size of a request"
	}
	return e
}

// errorText reads the error document of the distribution specification, or
// takes what is there for text.
func errorText(body []byte, contentType string) (codes []string, text string) {
	var doc struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
		// The form of token servers (RFC 6749) and of some proxies.
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
		Details     string          `json:"details"`
		Message     string          `json:"message"`
	}
	if json.Unmarshal(body, &doc) != nil {
		if len(body) == 0 || strings.Contains(contentType, "html") || body[0] == '<' {
			return nil, ""
		}
		return nil, printable(string(body))
	}
	var texts []string
	for _, e := range doc.Errors {
		codes = append(codes, e.Code)
		t := e.Code
		if e.Message != "" {
			t += ": " + e.Message
		}
		var detail string
		if json.Unmarshal(e.Detail, &detail) != nil && len(e.Detail) > 2 && string(e.Detail) != "null" {
			detail = string(e.Detail)
		}
		if detail != "" && detail != e.Message {
			t += " (" + detail + ")"
		}
		texts = append(texts, t)
	}
	if len(texts) == 0 {
		var short string
		_ = json.Unmarshal(doc.Error, &short)
		for _, t := range []string{short, doc.Description, doc.Details, doc.Message} {
			if t != "" {
				texts = append(texts, t)
			}
		}
	}
	return codes, printable(strings.Join(texts, "; "))
}

// printable makes text of a registry safe for a terminal and a log, and short.
func printable(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "�")
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxErrorText {
			b.WriteString("...")
			break
		}
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default: // controls, and the marks that turn the direction of text
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

const proxyHint = "the proxy wants credentials: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT has them, and NO_PROXY=HOST goes by it"

// explain puts what can be done to an error of the connection.
func (rq *request) explain(err error) error {
	var noHost *net.DNSError
	hint, untrusted := tlsHint(rq.host.name, err)
	switch {
	case hint == "" && strings.Contains(err.Error(), "Proxy Authentication Required"): // the answer to CONNECT; net/http has no kind for it
		hint = proxyHint
	case untrusted:
		return fmt.Errorf("%s %s: %w: %w: %s", rq.op, rq.what, ErrUntrusted, err, hint)
	case hint == "" && errors.As(err, &noHost) && noHost.IsNotFound:
		hint = "check the name of the registry"
		if rq.host.name == "docker.io" {
			hint = "is there a way to docker.io, which is meant where a name begins with no host?"
		}
	case hint == "" && errors.Is(err, connRefused):
		hint = "nothing listens there: is the registry running, and is this its port?"
	}
	if hint != "" {
		hint = ": " + hint
	}
	where := rq.op + " " + rq.what + ": "
	if strings.HasPrefix(err.Error(), where) { // it is of this request, and says so
		where = ""
	}
	return fmt.Errorf("%s%w%s", where, err, hint)
}

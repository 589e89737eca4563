package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// AccessEntry is one line of the access log. Names of fields are stable.
type AccessEntry struct {
	Time     time.Time `json:"time"` // when the request had come, UTC
	Remote   string    `json:"remote"`
	User     string    `json:"user,omitempty"`
	Method   string    `json:"method"`
	Path     string    `json:"path"` // as it was asked for, percent-encoded, with the query
	Proto    string    `json:"proto"`
	Endpoint string    `json:"endpoint"` // "manifest", "blob", "upload", ...
	Repo     string    `json:"repo,omitempty"`
	Status   int       `json:"status"`
	Error    string    `json:"error,omitempty"` // the specification's code
	Received int64     `json:"received"`        // bytes of the body
	Sent     int64     `json:"sent"`            // bytes of the answer's body
	Seconds  float64   `json:"seconds"`
	Agent    string    `json:"agent,omitempty"`
}

// accessLog writes lines whole, one at a time.
type accessLog struct {
	mu sync.Mutex
	to io.Writer
}

func (l *accessLog) write(e *AccessEntry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.to.Write(append(line, '\n'))
	return err
}

// exchange is a request that is being answered: what is noted about it.
type exchange struct {
	http.ResponseWriter
	status   int
	sent     int64
	received countedBody
	user     string
	route    route
	code     string // of the refusal
}

func newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w}
	x.received.ReadCloser = r.Body
	r.Body = &x.received
	return x
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(p)
	x.sent += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that files go from the kernel to the kernel.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	to, ok := x.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{x}, src)
	}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := to.ReadFrom(src)
	x.sent += n
	return n, err
}

// countedBody counts what is read of a body.
type countedBody struct {
	io.ReadCloser
	n     int64
	ended bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// leave ends an exchange whose body nobody has read to its end. net/http reads a
// short rest itself, to use the connection again, and would wait for it for ever.
func (x *exchange) leave(r *http.Request, wait time.Duration) {
	if r.ContentLength != 0 && !x.received.ended {
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now().Add(wait)) //nolint:forbidigo // deadlines of connections are points in time
	}
}

// ended notes an exchange that is over.
func (s *Server) ended(r *http.Request, x *exchange, start time.Time) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	took := s.now().Sub(start)
	s.metrics.observe(r.Method, x, took)
	if s.access == nil {
		return
	}
	err := s.access.write(&AccessEntry{
		Time: start.UTC(), Remote: r.RemoteAddr, User: x.user, Method: r.Method, Path: r.URL.RequestURI(), Proto: r.Proto,
		Endpoint: x.route.ep.String(), Repo: x.route.repo, Status: x.status, Error: x.code,
		Received: x.received.n, Sent: x.sent, Seconds: took.Seconds(), Agent: r.UserAgent(),
	})
	if err != nil && !s.accessFailed.Swap(true) { // said once: the next ones fail as well
		s.log.Error("writing the access log", "error", err)
	}
}

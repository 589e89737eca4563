package serve

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// body is the request's body with a deadline for each read: a slow upload is
// fine, one that has stopped is not.
type body struct {
	io.Reader
	rc   *http.ResponseController
	wait time.Duration
	fail error // what ended it before its end
}

func (s *Server) newBody(w http.ResponseWriter, r *http.Request) *body {
	return &body{Reader: r.Body, rc: http.NewResponseController(w), wait: s.timeouts.body()}
}

func (b *body) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.wait)) //nolint:forbidigo // deadlines of connections are points in time
	n, err := b.Reader.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		// The connection lives on after its body: see net/http's background read.
		_ = b.rc.SetReadDeadline(time.Time{})
	case err != nil:
		b.fail = err
	}
	return n, err
}

// pacedWriter gives each megabyte of an answer a deadline, and hands files to
// the kernel as net/http does.
type pacedWriter struct {
	http.ResponseWriter
	rc   *http.ResponseController
	wait time.Duration
}

const pace = 1 << 20

func (s *Server) newPacedWriter(w http.ResponseWriter) *pacedWriter {
	return &pacedWriter{w, http.NewResponseController(w), s.timeouts.body()}
}

func (w *pacedWriter) extend() {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.wait)) //nolint:forbidigo // deadlines of connections are points in time
}

func (w *pacedWriter) done() { _ = w.rc.SetWriteDeadline(time.Time{}) }

func (w *pacedWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *pacedWriter) ReadFrom(src io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	limited, isLimited := src.(*io.LimitedReader)
	if !ok || !isLimited {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	var total int64
	for limited.N > 0 {
		w.extend()
		// One LimitedReader deep is what sendfile recognises.
		part := &io.LimitedReader{R: limited.R, N: min(limited.N, pace)}
		n, err := to.ReadFrom(part)
		total += n
		limited.N -= n
		if err != nil || n == 0 {
			return total, err
		}
	}
	return total, nil
}

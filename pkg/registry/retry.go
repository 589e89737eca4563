package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/manifestctl/manifestctl/pkg/event"
)

const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	maxPause     = time.Minute // the longest Retry-After that is obeyed
)

// backoff is how long to wait after the try-th try: exponential with jitter, so
// that many workers that failed together do not come back together.
func backoff(try int) time.Duration {
	d := min(firstBackoff<<(try-1), maxBackoff)
	return d/2 + rand.N(d/2+1)
}

// passing tells whether an outcome may be another one next time, and how long
// the registry asks to be left alone, if it says.
func (c *Client) passing(ctx context.Context, h *host, resp *http.Response, err error) (again bool, pause time.Duration) {
	if err != nil {
		// A registry that has answered and now refuses connections restarts.
		return ctx.Err() == nil && (passingError(err) || refused(err) && h.hasAnswered()), 0
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true, retryAfter(resp.Header)
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return true, 0
	}
	return false, 0
}

func passingError(err error) bool {
	var (
		source *sourceError
		local  *localError
		op     *net.OpError
		dns    *net.DNSError
	)
	switch {
	case errors.As(err, &source), errors.As(err, &local), errors.Is(err, errAddress), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, errIdle), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return true
	case errors.As(err, &dns):
		return dns.IsTimeout || dns.IsTemporary && !dns.IsNotFound
	case errors.As(err, &op) && op.Op == "dial":
		return op.Timeout()
	case errors.As(err, &op): // reading and writing, by whatever call; but not an alert of TLS
		return op.Op != "remote error" && op.Op != "local error"
	}
	// net/http has no kinds for these.
	for _, text := range []string{"server closed idle connection", "GOAWAY", "cannot rewind body after connection loss", "RST_STREAM", "stream error", "http2: client connection lost", "use of closed network connection", "transport connection broken"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// untouched reports that the registry closed the connection without having looked at the request, as one does that
// answers only so many on each. It counts as never made (RFC 9113, section 6.8). net/http has no kind for it, and makes
// only requests without a body again.
func untouched(err error) bool {
	return err != nil && strings.Contains(err.Error(), "graceful shutdown GOAWAY")
}

// maxUntouched is how often in a row one request may find a connection that closes.
const maxUntouched = 100

// refused reports that nothing listens.
func refused(err error) bool { return errors.Is(err, connRefused) }

// retryAfter reads seconds, or a date, which is compared with the registry's own
// clock. It is at most maxPause and zero when the registry does not say.
func retryAfter(h http.Header) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 63); err == nil {
		return time.Duration(min(s, uint64(maxPause/time.Second))) * time.Second
	}
	at, err1 := http.ParseTime(v)
	now, err2 := http.ParseTime(h.Get("Date"))
	if err1 != nil || err2 != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxPause))
}

// closeGate pauses all requests to a registry that asked for it. Whoever comes
// first keeps the time.
func (c *Client) closeGate(ctx context.Context, h *host, d time.Duration) error {
	h.learned.Lock()
	if h.gate != nil {
		h.learned.Unlock()
		return c.waitGate(ctx, h)
	}
	gate := make(chan struct{})
	h.gate = gate
	h.learned.Unlock()
	defer func() {
		h.learned.Lock()
		h.gate = nil
		h.learned.Unlock()
		close(gate)
	}()
	c.events.Emit(event.Event{Kind: event.Warning, ID: h.name, Text: h.name + " limits requests: waiting " + d.String()})
	return c.o.Sleep(ctx, d)
}

// waitGate waits while a registry is left alone.
func (c *Client) waitGate(ctx context.Context, h *host) error {
	h.learned.Lock()
	gate := h.gate
	h.learned.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onceText remembers what was said.
type onceText struct {
	said  sync.Mutex
	texts map[string]bool
}

func (o *onceText) first(s string) bool {
	o.said.Lock()
	defer o.said.Unlock()
	if o.texts[s] || len(o.texts) > 100 {
		return false
	}
	if o.texts == nil {
		o.texts = map[string]bool{}
	}
	o.texts[s] = true
	return true
}

// warn passes on a registry's warnings (distribution specification, "Warnings"),
// each once.
func (c *Client) warn(resp *http.Response) {
	for _, v := range resp.Header.Values("Warning") {
		text, ok := strings.CutPrefix(v, "299 - ")
		if !ok {
			continue
		}
		if s, err := strconv.Unquote(text); err == nil {
			text = s
		}
		if text = resp.Request.URL.Host + " warns: " + printable(text); c.warnings.first(text) {
			c.events.Emit(event.Event{Kind: event.Warning, ID: resp.Request.URL.Host, Text: text})
		}
	}
}

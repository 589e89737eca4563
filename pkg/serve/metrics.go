package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// buckets of the histogram of durations, in seconds.
var buckets = []float64{0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300}

// metrics counts what the registry does, in the text format of Prometheus 0.0.4.
// Labels have few values: no names of repositories, tags or users.
type metrics struct {
	start    time.Time
	inFlight atomic.Int64
	denied   atomic.Int64 // refused for want of a name, a password or a right

	table     sync.Mutex
	requests  map[requestKey]int64
	durations map[endpoint]*histogram
	received  map[endpoint]int64
	sent      map[endpoint]int64
}

type requestKey struct {
	method string
	ep     endpoint
	status int
}

type histogram struct {
	counts []int64 // per bucket, not cumulative; the last one is beyond all
	sum    float64
}

func newMetrics(start time.Time) *metrics {
	return &metrics{
		start: start, requests: map[requestKey]int64{}, durations: map[endpoint]*histogram{},
		received: map[endpoint]int64{}, sent: map[endpoint]int64{},
	}
}

// knownMethods are the values of the label method; any other is "other".
var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

func (m *metrics) observe(method string, x *exchange, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = "other"
	}
	if x.status == http.StatusUnauthorized || x.status == http.StatusForbidden {
		m.denied.Add(1)
	}
	ep := x.route.ep
	m.table.Lock()
	defer m.table.Unlock()
	m.requests[requestKey{method, ep, x.status}]++
	m.received[ep] += x.received.n
	m.sent[ep] += x.sent
	h := m.durations[ep]
	if h == nil {
		h = &histogram{counts: make([]int64, len(buckets)+1)}
		m.durations[ep] = h
	}
	at, _ := slices.BinarySearch(buckets, took.Seconds())
	h.counts[at]++
	h.sum += took.Seconds()
}

// Metrics is the handler of /metrics and /healthz, to be put where monitoring
// reaches it. It needs no password and tells no names.
func (s *Server) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.content.HasRepo(r.Context(), "healthz"); err != nil {
			http.Error(w, "the content cannot be read", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(s.exposition())
	})
	return mux
}

// exposition is the whole text, in a stable order.
func (s *Server) exposition() []byte {
	var w bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, v float64) {
		family(name, kind, help)
		fmt.Fprintf(&w, "%s %s\n", name, number(v))
	}
	m := s.metrics
	one("process_start_time_seconds", "gauge", "Start of the registry, in seconds since 1970.", float64(m.start.UnixMilli())/1000)
	one("manifestctl_registry_requests_in_flight", "gauge", "Requests that are being answered.", float64(m.inFlight.Load()))
	one("manifestctl_registry_uploads_open", "gauge", "Uploads that have begun and not ended.", float64(s.sessions.count()))
	one("manifestctl_registry_denied_total", "counter", "Requests refused for want of a name, a password or a right.", float64(m.denied.Load()))
	one("manifestctl_registry_content_bytes", "gauge", "Bytes of all content, with unfinished uploads.", float64(s.quota.used.Load()))
	one("manifestctl_registry_content_limit_bytes", "gauge", "The limit of content_bytes; 0: none.", float64(s.quota.limit))
	m.table.Lock()
	defer m.table.Unlock()
	family("manifestctl_registry_requests_total", "counter", "Requests that were answered.")
	for _, k := range sorted(m.requests, requestKey.compare) {
		fmt.Fprintf(&w, "manifestctl_registry_requests_total{method=%q,endpoint=%q,status=\"%d\"} %d\n", k.method, k.ep, k.status, m.requests[k])
	}
	family("manifestctl_registry_received_bytes_total", "counter", "Bytes of the bodies of requests.")
	for _, ep := range sorted(m.received, compareEndpoints) {
		fmt.Fprintf(&w, "manifestctl_registry_received_bytes_total{endpoint=%q} %d\n", ep, m.received[ep])
	}
	family("manifestctl_registry_sent_bytes_total", "counter", "Bytes of the bodies of answers.")
	for _, ep := range sorted(m.sent, compareEndpoints) {
		fmt.Fprintf(&w, "manifestctl_registry_sent_bytes_total{endpoint=%q} %d\n", ep, m.sent[ep])
	}
	family("manifestctl_registry_request_seconds", "histogram", "Seconds from a request's header to the end of its answer.")
	for _, ep := range sorted(m.durations, compareEndpoints) {
		m.durations[ep].write(&w, ep)
	}
	return w.Bytes()
}

func (h *histogram) write(w *bytes.Buffer, ep endpoint) {
	total := int64(0)
	for i, n := range h.counts {
		total += n
		le := "+Inf"
		if i < len(buckets) {
			le = number(buckets[i])
		}
		fmt.Fprintf(w, "manifestctl_registry_request_seconds_bucket{endpoint=%q,le=%q} %d\n", ep, le, total)
	}
	fmt.Fprintf(w, "manifestctl_registry_request_seconds_sum{endpoint=%q} %s\n", ep, number(h.sum))
	fmt.Fprintf(w, "manifestctl_registry_request_seconds_count{endpoint=%q} %d\n", ep, total)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func compareEndpoints(a, b endpoint) int { return strings.Compare(a.String(), b.String()) }

func (k requestKey) compare(o requestKey) int {
	if c := compareEndpoints(k.ep, o.ep); c != 0 {
		return c
	}
	if c := strings.Compare(k.method, o.method); c != 0 {
		return c
	}
	return k.status - o.status
}

package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// The parts of an ExportTraceServiceRequest in OTLP's JSON encoding that are used here: ids are hexadecimal, 64-bit
// numbers are strings (opentelemetry-proto, "JSON Protobuf Encoding").
type (
	otlpRequest struct {
		ResourceSpans []otlpResource `json:"resourceSpans"`
	}
	otlpResource struct {
		Resource   otlpAttributes `json:"resource"`
		ScopeSpans []otlpScope    `json:"scopeSpans"`
	}
	otlpScope struct {
		Scope struct {
			Name string `json:"name"`
		} `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpAttributes struct {
		Attributes []otlpAttribute `json:"attributes,omitempty"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
		Bool   *bool   `json:"boolValue,omitempty"`
	}
	otlpSpan struct {
		TraceID string `json:"traceId"` // 16 bytes
		SpanID  string `json:"spanId"`  // 8 bytes
		Parent  string `json:"parentSpanId,omitempty"`
		Name    string `json:"name"`
		Kind    int    `json:"kind"` // 1: internal
		Start   string `json:"startTimeUnixNano"`
		End     string `json:"endTimeUnixNano"`
		otlpAttributes
		Status otlpStatus `json:"status"`
	}
	otlpStatus struct {
		Code    int    `json:"code,omitempty"` // 2: error
		Message string `json:"message,omitempty"`
	}
)

// WriteOTLP writes b as an OTLP/JSON trace: one span for the build, below it one for each step. A collector takes the
// file as the body of POST /v1/traces.
func WriteOTLP(w io.Writer, b Build) error {
	trace := identify(16, "trace", b.Name, b.Digest, nanos(b.Start))
	root := identify(8, "build", trace)
	spans := []otlpSpan{span(trace, root, "", "build "+b.Name, b.Start, b.End, map[string]any{"digest": b.Digest}, b.Error)}
	for i, s := range b.Steps {
		id := identify(8, "step", trace, strconv.Itoa(i), s.ID)
		spans = append(spans, span(trace, id, root, s.Name, s.Start, s.End, attributes(s), s.Error))
	}
	scope := otlpScope{Spans: spans}
	scope.Scope.Name = "manifestctl"
	return json.NewEncoder(w).Encode(otlpRequest{[]otlpResource{{
		Resource:   otlpAttributes{attributeList(map[string]any{"service.name": "manifestctl"})},
		ScopeSpans: []otlpScope{scope},
	}}})
}

func span(trace, id, parent, name string, start, end time.Time, a map[string]any, failure string) otlpSpan {
	s := otlpSpan{
		TraceID: trace, SpanID: id, Parent: parent, Name: name, Kind: 1,
		Start: nanos(start), End: nanos(end), otlpAttributes: otlpAttributes{attributeList(a)},
	}
	if failure != "" {
		s.Status = otlpStatus{Code: 2, Message: failure}
	}
	return s
}

func attributeList(a map[string]any) []otlpAttribute {
	list := make([]otlpAttribute, 0, len(a))
	for key, value := range a {
		var v otlpValue
		switch value := value.(type) {
		case string:
			v.String = &value
		case bool:
			v.Bool = &value
		default:
			n := fmt.Sprint(value)
			v.Int = &n
		}
		list = append(list, otlpAttribute{key, v})
	}
	slices.SortFunc(list, func(x, y otlpAttribute) int {
		if x.Key < y.Key {
			return -1
		}
		return 1
	})
	return list
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// identify makes an id of n bytes from what it stands for: the same build written twice is the same trace.
func identify(n int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:n])
}

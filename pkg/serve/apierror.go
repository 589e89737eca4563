package serve

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// apiError is a refusal in the form of the distribution specification ("Error
// codes"). Its text is for people and never holds content.
type apiError struct {
	status int
	code   string
	text   string
}

func (e *apiError) Error() string { return e.code + ": " + e.text }

// with is the refusal with a text that says more.
func (e *apiError) with(text string) *apiError { return &apiError{e.status, e.code, text} }

// status is the refusal under another status.
func (e *apiError) as(status int) *apiError { return &apiError{status, e.code, e.text} }

// The refusals.
var (
	errNotAPI            = &apiError{http.StatusNotFound, "NOT_FOUND", "no such endpoint of the registry API"}
	codeNameInvalid      = &apiError{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
	codeNameUnknown      = &apiError{http.StatusNotFound, "NAME_UNKNOWN", "repository not known to registry"}
	codeTagInvalid       = &apiError{http.StatusBadRequest, "TAG_INVALID", "invalid tag"}
	codeDigestInvalid    = &apiError{http.StatusBadRequest, "DIGEST_INVALID", "digest does not match content, or is none"}
	codeBlobUnknown      = &apiError{http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry"}
	codeUploadUnknown    = &apiError{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown to registry"}
	codeUploadInvalid    = &apiError{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "upload invalid"}
	codeUploadRange      = &apiError{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "chunk does not begin where the upload ends"}
	codeSizeInvalid      = &apiError{http.StatusBadRequest, "SIZE_INVALID", "length differs from what was announced"}
	codeManifestUnknown  = &apiError{http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown to registry"}
	codeManifestInvalid  = &apiError{http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid"}
	codeManifestBlob     = &apiError{http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "manifest names what is not in the repository"}
	codeManifestTooLarge = &apiError{http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", "manifest too large"}
	codePrecondition     = &apiError{http.StatusPreconditionFailed, "PRECONDITION_FAILED", "the tag is not what If-Match says"}
	codeUnsupported      = &apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "operation is unsupported"}
	codeReadOnly         = &apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "the registry is read-only"}
	codeDenied           = &apiError{http.StatusForbidden, "DENIED", "request from a web page refused"}
	codeUnauthorized     = &apiError{http.StatusUnauthorized, "UNAUTHORIZED", "log in first"}
	codeForbidden        = &apiError{http.StatusForbidden, "DENIED", "the user may not do this"}
	codeTooLarge         = &apiError{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "blob too large"}
	codeQuota            = &apiError{http.StatusForbidden, "DENIED", "the registry is full"}
	codeTooMany          = &apiError{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many uploads at once"}
	codeBusy             = &apiError{http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request is writing to this upload"}
	codePage             = &apiError{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is not a number of entries"}
	codeNoSpace          = &apiError{http.StatusInsufficientStorage, "UNKNOWN", "no space left in the registry"}
	codeInternal         = &apiError{http.StatusInternalServerError, "UNKNOWN", "the registry cannot read or write its content"}
)

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *apiError
	switch {
	case errors.As(err, &e):
	case isNoSpace(err):
		e = codeNoSpace
	default:
		e = codeInternal
	}
	if x, ok := w.(*exchange); ok {
		x.code = e.code
	}
	if e.status == http.StatusUnauthorized {
		s.users.challenge(w.Header())
	}
	if e.status >= 500 {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]item{"errors": {{e.code, strings.ToValidUTF8(e.text, "�")}}})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Docker-Content-Digest")
	w.WriteHeader(e.status)
	_, _ = w.Write(body)
}

func isNoSpace(err error) bool { return errors.Is(err, store.ErrNoSpace) || isDiskFull(err) }

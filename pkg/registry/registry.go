// Package registry speaks the OCI distribution protocol with a transport of our
// own: no ping, one connection pool, auth driven by the 401, credentials only to
// their own origin, every byte verified, children before the tag.
//
// It moves manifests and blobs as they are and does not interpret them; what an
// index or a config means is for package index and package image.
//
// # Invariants
//
//   - Credentials and tokens go to the origin (scheme, host and port) of the
//     registry they are for, and to a token server that [Options] or its domain
//     vouches for; a redirect never carries them elsewhere, nor https to http.
//   - What a registry, a redirect or a token realm names is not dialled when it
//     is a private, loopback or link-local address, unless the registry is there.
//   - A manifest is returned only after its digest is checked; whoever reads a
//     blob to EOF has verified it, also across resumed connections.
//   - Nothing is kept in memory that an image can make large: blobs stream, and
//     every other body is read up to a limit.
//   - Every wait ends: for the first byte, between bytes, between retries, and
//     with the context.
package registry

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// The kinds of errors.
var (
	ErrNotFound = errors.New("not found in the registry")
	ErrDenied   = errors.New("denied")
	// ErrNoRepository comes with ErrNotFound when the registry says that it knows no such repository.
	ErrNoRepository = errors.New("no such repository")
	ErrCorrupt      = errors.New("registry sent other bytes than asked for")
	// ErrBlobUnknown is the refusal of a manifest because the registry misses
	// something that it names: pushing that again and then the manifest helps.
	ErrBlobUnknown = errors.New("the registry misses a blob of the manifest")
	// ErrInvalid is a request that cannot be made: a reference that is not a
	// registry's, a digest that is none.
	ErrInvalid = errors.New("invalid request to a registry")
	// ErrOffline is a request that Options.Offline forbids.
	ErrOffline = errors.New("offline")
)

// Hosts is a set of registry hosts: some by name, or all.
type Hosts struct {
	All   bool
	Names []string // HOST[:PORT]; without a port, every port of the host
}

// Has reports whether host is in the set.
func (h Hosts) Has(host string) bool {
	if h.All {
		return true
	}
	bare, _ := splitPort(host)
	for _, name := range h.Names {
		if strings.EqualFold(name, host) || strings.EqualFold(name, bare) {
			return true
		}
	}
	return false
}

// Options tunes a client. The zero value is the recommended one.
type Options struct {
	PlainHTTP Hosts          // http instead of https; loopback addresses need no entry
	Insecure  Hosts          // TLS unverified
	Realms    Hosts          // token servers that may get the credentials of any registry, besides those of its own domain
	Keychain  authn.Keychain // nil: docker's and podman's files, see DefaultKeychain
	UserAgent string         // "": "manifestctl"
	Offline   bool           // every request fails at once, with ErrOffline

	// Places says where references lead: registries.conf, see package mirrors. nil: each to itself.
	Places Places

	CAFiles  []string // authorities in PEM, beside the system's, for every registry
	CertDir  string   // a directory like one of a registry in certs.d, for every registry
	CertDirs []string // directories that hold a directory HOST[:PORT] a registry; nil: DefaultCertDirs
	// HostCerts are directories like one of certs.d for one registry each, by HOST[:PORT].
	HostCerts map[string]string
	Events    event.Sink // called by one goroutine at a time

	// Pace, if not nil, waits before every attempt of a request: a limit.
	Pace func(context.Context) error

	MaxManifest int64 // bytes of a manifest; 0: 4 MiB, what every registry must accept
	ChunkSize   int64 // bytes of one request when an upload must be cut; 0: 16 MiB

	// Sleep waits between retries; nil waits by the clock. Tests pass one that returns at once.
	Sleep func(context.Context, time.Duration) error
}

const (
	defaultMaxManifest = 4 << 20
	defaultChunk       = 16 << 20

	// tries is how often a request is made in all, and how often a transfer goes
	// on after a cut without having moved a worthwhile number of bytes.
	tries = 5
	// worthwhile is the progress, in bytes, after which a cut transfer may be cut
	// another full number of times.
	worthwhile = 64 << 10
)

// Client talks to any number of registries. It is safe for concurrent use.
type Client struct {
	o          Options
	events     event.Sink
	idle       time.Duration // longest wait between two bytes of a body
	headerWait time.Duration // longest wait for the answer to a request that was sent
	helper     time.Duration // longest wait for the keychain, that is for a credential helper
	maxTags    int
	pool       pool
	trusts     trusts
	hosts      hostTable
	warnings   onceText
	uploads    keyedLocks
}

// New makes a client. It does no I/O.
func New(o Options) *Client {
	if o.Keychain == nil {
		o.Keychain = DefaultKeychain(nil)
	}
	if o.CertDirs == nil {
		o.CertDirs = DefaultCertDirs(nil)
	}
	if o.UserAgent == "" {
		o.UserAgent = "manifestctl"
	}
	if o.MaxManifest <= 0 {
		o.MaxManifest = defaultMaxManifest
	}
	if o.ChunkSize <= 0 {
		o.ChunkSize = defaultChunk
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return &Client{
		o:      o,
		events: event.Serial(o.Events),
		idle:   time.Minute,
		// A registry on object storage copies a whole blob before it answers the
		// last request of an upload: that takes minutes for some gigabytes.
		headerWait: 5 * time.Minute,
		helper:     40 * time.Second, // each is ended after 30
		maxTags:    maxTags,
		pool:       pool{reachOf: reachOf},
	}
}

// Open gives a blob's bytes, from the start, as often as asked: retries need it.
type Open func(context.Context) (io.ReadCloser, error)

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
